"""The random numbers under gumbel_topk and sample_bernoulli: Philox 4x32-10, and the Gumbel numbers made of it.

The generator is checked in the reference; test_gumbel_topk.py and test_sample_bernoulli.py show that the native ops use
the same numbers, bit for bit.
"""

from __future__ import annotations

import math

import pytest
import torch
from batches import int32, int64

import score_ext
from score_ext import reference

# Of Random123, kat_vectors: counter, key, and what philox4x32-10 makes of them.
KNOWN_ANSWERS = {
    "zeros": ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    "ones": ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    "pi": ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
}


@pytest.mark.parametrize("name", KNOWN_ANSWERS)
def test_philox_known_answers(name: str) -> None:
    counter, key, answer = ([int(word, 16) for word in words.split()] for words in KNOWN_ANSWERS[name])
    words = reference._philox([torch.tensor(word) for word in counter], key[0] | key[1] << 32)
    assert [int(word) for word in words] == answer


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63), 0x0123456789ABCDEF])
def test_native_philox_is_the_reference_one(seed: int) -> None:
    """Equal logits: the order of a draw is the order of the random words, small words first."""
    length = 1021
    logits = torch.zeros(length)
    for sample, video in ((0, 0), (1, 0), (0, 2), (2, 1)):
        cu_seqlens = int32(*[0] * (video + 1), length)
        keep = int32(*[0] * video, length)
        _, order = score_ext.gumbel_topk(logits, cu_seqlens, keep, sample + 1, int64(seed), length)
        words = reference._random_words(length, seed, "gumbel_topk", sample, video)
        in_order = words[order[sample]].double()
        # Gumbel numbers are floats: words that differ in less than a float's last place may tie.
        assert (in_order.diff() > -(2.0**9)).all()
        assert torch.unique(in_order).numel() == torch.unique(words).numel()


def words(count: int = 1 << 20) -> torch.Tensor:
    return reference._random_words(count, 20260327, "gumbel_topk", 0, 0)


def kolmogorov_distance(values: torch.Tensor, distribution: torch.Tensor) -> float:
    """Between the empirical distribution of sorted values and the distribution function at them."""
    count = len(values)
    steps = torch.arange(count + 1, dtype=torch.float64) / count
    return max(float((distribution - steps[:-1]).abs().max()), float((distribution - steps[1:]).abs().max()))


def test_words_are_uniform() -> None:
    values = words().double().add(0.5).mul(2.0**-32).sort().values
    # P(distance > 1.95 / sqrt(n)) is 0.001 by Kolmogorov's law; the words are fixed, so this passes always or never.
    assert kolmogorov_distance(values, values) < 1.95 / math.sqrt(len(values))


def test_every_bit_is_fair() -> None:
    bits = (words()[:, None] >> torch.arange(32)) & 1
    deviations = (bits.double().mean(0) - 0.5) * 2 * math.sqrt(len(bits))
    assert deviations.abs().max() < 4.2  # the largest of 32 normal numbers: P < 0.001


def test_neighbours_are_uncorrelated() -> None:
    centred = words().double().mul(2.0**-32).sub(0.5)
    for lag in (1, 2, 3, 4, 5, 256):
        correlation = (centred[lag:] * centred[:-lag]).mean() * 12
        assert abs(float(correlation)) < 4.0 / math.sqrt(len(centred))


def test_streams_samples_videos_and_seeds_differ() -> None:
    keys = [
        (0, "gumbel_topk", 0, 0),
        (0, "bernoulli", 0, 0),
        (0, "gumbel_topk", 1, 0),
        (0, "gumbel_topk", 0, 1),
        (1, "gumbel_topk", 0, 0),
        (1 << 32, "gumbel_topk", 0, 0),
        (-1, "gumbel_topk", 0, 0),
    ]
    drawn = torch.stack([reference._random_words(64, *key) for key in keys])
    for i in range(len(keys)):
        for j in range(i):
            assert (drawn[i] == drawn[j]).sum() == 0


def test_gumbel_moments_and_distribution() -> None:
    values = reference._gumbel(words()).double().sort().values
    count = len(values)
    # Mean and variance of a standard Gumbel number, with four standard errors (its fourth central moment is 5.4 var^2).
    variance = math.pi**2 / 6
    assert abs(float(values.mean()) - 0.5772156649) < 4 * math.sqrt(variance / count)
    assert abs(float(values.var()) - variance) < 4 * variance * math.sqrt(4.4 / count)
    assert kolmogorov_distance(values, torch.exp(-torch.exp(-values))) < 1.95 / math.sqrt(count)


def test_gumbel_is_exact_to_a_few_units_in_the_last_place_everywhere() -> None:
    """Both tails to the last word, and both sides of where the formula changes."""
    ends = torch.arange(4096)
    middle = torch.randint(0, 1 << 32, (1 << 16,), generator=torch.Generator().manual_seed(0))
    chosen = torch.cat([ends, 0xFFFFFFFF - ends, 0x40000000 - 2048 + ends, middle])
    below = (chosen.double() + 0.5) * 2.0**-32
    exact = -torch.log(-torch.log1p(-below))
    error = (reference._gumbel(chosen).double() - exact).abs()
    # The word becomes a float first: 2^-24 of the tail that it is, which the logarithms turn into an absolute error.
    assert (error <= 4e-7 * exact.abs().clamp(min=1.0)).all()


def test_sigmoid_is_exact_to_fixed_point() -> None:
    x = torch.cat([torch.linspace(-100, 100, 200001), torch.tensor([math.inf, -math.inf, 0.0, -0.0])])
    exact = torch.sigmoid(x.double())
    fixed = reference._sigmoid_fixed(x).double() * 2.0**-30
    assert (fixed - exact).abs().max() < 2e-7
    small = exact < 1e-4
    assert (fixed - exact)[small].abs().max() < 1e-9  # relative there, down to the fixed point's step
    assert reference._sigmoid_fixed(torch.tensor(math.nan)) == 0
    assert reference._sigmoid_fixed(torch.tensor(math.inf)) == 1 << 30
    assert reference._sigmoid_fixed(torch.tensor(-math.inf)) == 0
