"""Sampling strategies, against every subset of a small set written out in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import score_ext
from score_video.packed import PackedVideos
from score_video.rl.environment import Selection
from score_video.rl.sampling import SAMPLINGS, Counted, Rollout

LOGITS = torch.tensor([0.7, -1.2, 0.1, -0.4])
WORTH = torch.tensor([1.0, 0.5, -2.0, 3.0], dtype=torch.float64)


def packed(*lengths: int) -> PackedVideos:
    """Videos of so many tokens; samplings look at their number alone."""
    return PackedVideos.from_frames([torch.zeros(length, 1, 1, 1) for length in lengths])


def int32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def int64(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def random_logits(length: int, seed: int = 0) -> Tensor:
    return torch.randn(length, generator=torch.Generator().manual_seed(seed)) - 1


def reward_of(subset: tuple[int, ...]) -> float:
    """Of no simple form: not linear in the tokens, and it depends on how many there are."""
    worth = float(WORTH[list(subset)].sum())
    return worth * worth - 0.7 * len(subset) + (2.0 if 1 in subset and 3 in subset else 0.0)


def subsets(sizes: range) -> list[tuple[int, ...]]:
    return [subset for size in sizes for subset in itertools.combinations(range(len(LOGITS)), size)]


# The probability of each subset, by definition: differentiable float64 functions of the logits.


def given_count(logits: Tensor, subset: tuple[int, ...]) -> Tensor:
    """Drawn without replacement in any order: P(S) = sum of P(S without i) P(i is next) over the i in S."""
    if not subset:
        return logits.new_ones(())
    total = logits.new_zeros(())
    for last in subset:
        before = tuple(i for i in subset if i != last)
        left = [i for i in range(len(logits)) if i not in before]
        total = total + given_count(logits, before) * logits[left].softmax(0)[left.index(last)]
    return total


def independently(logits: Tensor, subset: tuple[int, ...]) -> Tensor:
    kept = torch.tensor([i in subset for i in range(len(logits))])
    return torch.where(kept, logits.sigmoid(), 1 - logits.sigmoid()).prod()


def cell(count: int) -> tuple[float, float]:
    """The range of log k whose exp is rounded to that count and held between 1 and the length."""
    low = -math.inf if count == 1 else math.log(count - 0.5)
    return low, math.inf if count == len(LOGITS) else math.log(count + 0.5)


def counted(logits: Tensor, subset: tuple[int, ...]) -> Tensor:
    mean = logits.sigmoid().sum().log()
    below = [torch.special.ndtr((edge - mean) / 0.5) for edge in cell(len(subset))]
    return (below[1] - below[0]) * given_count(logits, subset)


Case = tuple[str, Callable[[Tensor, tuple[int, ...]], Tensor], list[tuple[int, ...]]]
CASES: list[Case] = [
    *((name, given_count, subsets(range(k, k + 1))) for name in ("exact", "diverse") for k in range(1, 5)),
    ("bernoulli", independently, subsets(range(5))),
    ("counted", counted, subsets(range(1, 5))),
]


# Every outcome of a sampling as one sample of a single video, with what it counts for: sums over them are expectations.


def all_outcomes(name: str, outcomes: list[tuple[int, ...]]) -> tuple[Rollout, Tensor, list[tuple[int, ...]]]:
    """A rollout of all outcomes [G, 1], the measure of each float64 [G], its subset."""
    if name == "bernoulli":
        mask = torch.tensor([[i in subset for i in range(len(LOGITS))] for subset in outcomes])
        return Rollout(chosen(outcomes), {"mask": mask}, {}), torch.ones(len(outcomes)).double(), outcomes
    orders = [order for subset in outcomes for order in itertools.permutations(subset)]
    if name in ("exact", "diverse"):  # which are the same where all tokens are equally far apart
        order = int64(*itertools.chain(*orders)).view(len(orders), -1)
        return Rollout(chosen(orders), {"order": order}, {}), torch.ones(len(orders)).double(), orders
    # the count is a real number: its integral over each cell by Gauss and Legendre
    points, weights = np.polynomial.legendre.leggauss(60)
    mean = NormalDist(math.log(float(LOGITS.sigmoid().sum())), 0.5)
    nodes: list[tuple[tuple[int, ...], float, float]] = []
    for order in orders:
        low, high = (min(max(edge, mean.mean - 4), mean.mean + 4) for edge in cell(len(order)))
        nodes += [
            (order, (low + high) / 2 + (high - low) / 2 * x, (high - low) / 2 * w)
            for x, w in zip(points, weights, strict=True)
        ]
    every = [order for order, _, _ in nodes]
    copies = [len(LOGITS) * g + i for g, order in enumerate(every) for i in order]
    actions = {
        "order": int64(*copies)[None],
        "log_count": torch.tensor([[z] for _, z, _ in nodes]),
    }
    return Rollout(chosen(every), actions, {}), torch.tensor([w for *_, w in nodes]).double(), every


def chosen(outcomes: list[tuple[int, ...]]) -> Selection:
    rows = [i for subset in outcomes for i in sorted(subset)]
    return Selection(int64(*rows), int32(*(len(subset) for subset in outcomes))[:, None])


@pytest.mark.parametrize(("name", "probability", "outcomes"), CASES)
def test_gradient_equals_brute_force(name: str, probability: Case[1], outcomes: Case[2]) -> None:
    """sum of P r grad log P over all outcomes = the gradient of the expected reward."""
    leaf = LOGITS.double().requires_grad_()
    expected_reward = sum(probability(leaf, subset) * reward_of(subset) for subset in outcomes)
    (exact,) = torch.autograd.grad(expected_reward, leaf)

    sampling, videos = SAMPLINGS[name], packed(len(LOGITS))
    rollout, measure, every = all_outcomes(name, outcomes)
    leaf = LOGITS.clone().requires_grad_()
    factors = sampling.log_prob(leaf, videos, rollout)
    assert tuple(factors) == sampling.factors
    log_prob = torch.stack([value.double() for value in factors.values()]).sum(0)[:, 0]
    weight = (log_prob.exp() * measure).detach()  # of each outcome, its probability
    assert float(weight.sum()) == pytest.approx(1, abs=1e-6)
    reward = torch.tensor([reward_of(subset) for subset in every], dtype=torch.float64)
    (estimate,) = torch.autograd.grad((weight * reward * log_prob).sum(), leaf)
    torch.testing.assert_close(estimate.double(), exact, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize(("name", "probability", "outcomes"), CASES)
def test_draws_are_as_likely_as_they_say(name: str, probability: Case[1], outcomes: Case[2]) -> None:
    samples = 20_000
    keep = int32(len(outcomes[0]))
    rollout = SAMPLINGS[name].sample(LOGITS, packed(len(LOGITS)), keep, samples, int64(11))
    drawn = torch.zeros(samples, len(LOGITS))
    sample = torch.arange(samples).repeat_interleave(rollout.selection.keep[:, 0])
    drawn[sample, rollout.selection.index] = 1
    for subset in outcomes:
        wanted = torch.tensor([float(i in subset) for i in range(len(LOGITS))])
        frequency = float((drawn == wanted).all(1).float().mean())
        expected = float(probability(LOGITS.double(), subset))
        assert abs(frequency - expected) <= 4.5 * math.sqrt(expected * (1 - expected) / samples) + 1e-9


def parts(rollout: Rollout) -> dict[tuple[int, int], list[int]]:
    """The rows that each (sample, video) keeps."""
    keep = rollout.selection.keep
    rows = rollout.selection.index.split(keep.flatten().tolist())
    return {divmod(number, keep.shape[1]): part.tolist() for number, part in enumerate(rows)}


lengths_of_videos = st.lists(st.integers(0, 12), min_size=1, max_size=5)


@pytest.mark.parametrize("name", SAMPLINGS)
@settings(max_examples=40, deadline=None)
@given(lengths_of_videos, st.integers(-(2**63), 2**63 - 1), st.integers(0, 3))
def test_draws_by_seed_alone(name: str, lengths: list[int], seed: int, samples: int) -> None:
    """The same seeds draw the same, and a video alone what it draws in a batch; selections are in order and whole."""
    sampling, videos, samples = SAMPLINGS[name], packed(*lengths), samples + 1
    logits = random_logits(sum(lengths), seed % 1000)
    keep = int32(*(length // 2 for length in lengths))
    # any int64: the next ones wrap around
    seeds = int64(*(((seed + b + 2**63) % 2**64) - 2**63 for b in range(len(lengths))))
    rollout = sampling.sample(logits, videos, keep, samples, seeds)
    again = sampling.sample(logits, videos, keep, samples, seeds)
    assert torch.equal(rollout.selection.index, again.selection.index)
    log_prob = sampling.log_prob(logits, videos, rollout)

    assert tuple(log_prob) == tuple(rollout.decisions) == sampling.factors
    assert rollout.selection.keep.dtype == torch.int32
    assert rollout.selection.keep.shape == (samples, len(lengths))
    starts = videos.cu_seqlens.tolist()
    for (g, b), rows in parts(rollout).items():
        assert rows == sorted(set(rows))
        assert all(starts[b] <= row < starts[b + 1] for row in rows)
        if name in ("exact", "diverse"):
            assert len(rows) == keep[b]
        if name == "counted":
            assert (1 if lengths[b] else 0) <= len(rows) <= lengths[b]
        assert (
            sum(int(rollout.decisions[factor][g, b]) for factor in sampling.factors)
            == {
                "exact": len(rows),
                "diverse": len(rows),
                "bernoulli": lengths[b],
                "counted": len(rows) + (lengths[b] > 0),
            }[name]
        )

    for b, length in enumerate(lengths):
        own = slice(starts[b], starts[b + 1])
        alone = sampling.sample(logits[own], packed(length), keep[b : b + 1], samples, seeds[b : b + 1])
        for (g, _), rows in parts(alone).items():
            assert [row + starts[b] for row in rows] == parts(rollout)[g, b]
        for factor, value in sampling.log_prob(logits[own], packed(length), alone).items():
            assert torch.equal(value[:, 0], log_prob[factor][:, b])


@pytest.mark.parametrize("name", SAMPLINGS)
@pytest.mark.parametrize("lengths", [(0, 5, 0, 3), (0,), (0, 0)])
def test_empty_videos_keep_nothing_and_teach_nothing(name: str, lengths: tuple[int, ...]) -> None:
    sampling, videos = SAMPLINGS[name], packed(*lengths)
    leaf = random_logits(sum(lengths)).requires_grad_()
    keep = int32(*(min(length, 2) for length in lengths))
    rollout = sampling.sample(leaf, videos, keep, 3, torch.arange(len(lengths)))
    empty = videos.lengths == 0
    assert (rollout.selection.keep[:, empty] == 0).all()
    log_prob = sampling.log_prob(leaf, videos, rollout)
    for value in log_prob.values():
        assert (value[:, empty] == 0).all()
        assert value.isfinite().all()
    (gradient,) = torch.autograd.grad(torch.stack(list(log_prob.values())).sum(), leaf)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", SAMPLINGS)
def test_samples_differ_and_seeds_differ(name: str) -> None:
    videos = packed(200, 200)
    logits = random_logits(200).repeat(2)
    same = SAMPLINGS[name].sample(logits, videos, int32(20, 20), 4, int64(5, 5))
    rows = parts(same)
    assert len({tuple(rows[g, 0]) for g in range(4)}) == 4
    assert all([row + 200 for row in rows[g, 0]] == rows[g, 1] for g in range(4))
    other = parts(SAMPLINGS[name].sample(logits, videos, int32(20, 20), 4, int64(5, 6)))
    assert all([row + 200 for row in other[g, 0]] != other[g, 1] for g in range(4))


def test_bernoulli_factors_sum_to_the_native_log_probability() -> None:
    videos = packed(40, 0, 7)
    logits = random_logits(47) * 3
    seeds = int64(1, 2, 3)
    rollout = SAMPLINGS["bernoulli"].sample(logits, videos, int32(0, 0, 0), 5, seeds)
    factors = SAMPLINGS["bernoulli"].log_prob(logits, videos, rollout)
    _, native, count = score_ext.sample_bernoulli(logits, videos.cu_seqlens, 5, seeds)
    torch.testing.assert_close(factors["keep"] + factors["drop"], native, rtol=1e-5, atol=1e-5)
    assert torch.equal(count, rollout.decisions["keep"])
    # certain decisions cost nothing, whichever factor they are in
    certain = SAMPLINGS["bernoulli"].log_prob(torch.full((47,), 200.0), videos, rollout)
    assert (certain["keep"] == 0).all()
    assert torch.equal(certain["drop"], -200.0 * rollout.decisions["drop"])


def test_bernoulli_sums_of_long_videos_are_exact_enough_for_ratios() -> None:
    length = 60_000
    videos, logits = packed(length), random_logits(length)
    rollout = SAMPLINGS["bernoulli"].sample(logits, videos, int32(0), 2, int64(3))
    factors = SAMPLINGS["bernoulli"].log_prob(logits, videos, rollout)
    mask = rollout.actions["mask"]
    log_drop = torch.nn.functional.logsigmoid(-logits.double())
    expected = torch.where(mask, 0.0, log_drop).sum(1)
    torch.testing.assert_close(factors["drop"][:, 0].double(), expected, rtol=2e-7, atol=0)


def test_counts_are_log_normal_and_independent() -> None:
    """Neighbouring seeds and samples too."""
    samples, batch = 500, 40
    videos = packed(*[50] * batch)
    logits = random_logits(50 * batch)
    rollout = Counted(deviation=0.3).sample(logits, videos, int32(*[0] * batch), samples, torch.arange(batch))
    mean = logits.double().sigmoid().view(batch, 50).sum(1).log()
    z = (rollout.actions["log_count"].double() - mean) / 0.3
    normal = torch.special.ndtr(z.flatten().sort().values)
    distance = (normal - (torch.arange(z.numel()) + 0.5) / z.numel()).abs().max()
    assert distance < 1.95 / math.sqrt(z.numel())  # Kolmogorov and Smirnov, 0.1%
    for first, second in ((z[1:], z[:-1]), (z[:, 1:], z[:, :-1])):
        assert abs(float((first * second).mean())) < 4 / math.sqrt(first.numel())
    # seeds a step of the hash apart share no samples
    step = 0x9E3779B97F4A7C15 - 2**64
    apart = Counted().sample(LOGITS.repeat(2), packed(4, 4), int32(0, 0), 9, int64(3, 3 + step)).actions["log_count"]
    assert not torch.isin(apart[:, 0], apart[:, 1]).any()
    nearest = rollout.actions["log_count"].exp().round().clamp(1, 50)
    assert torch.equal(rollout.selection.keep, nearest.int())


def test_a_shift_of_the_logits_changes_the_count_alone() -> None:
    videos, logits = packed(30, 10), random_logits(40)
    sampling = SAMPLINGS["counted"]
    rollout = sampling.sample(logits, videos, int32(0, 0), 4, int64(1, 2))
    leaf = logits.clone().requires_grad_()
    factors = sampling.log_prob(leaf, videos, rollout)
    slope = {f: torch.autograd.grad(factors[f].sum(), leaf, retain_graph=True)[0].sum() for f in factors}
    assert abs(float(slope["subset"])) < 1e-4
    assert abs(float(slope["count"])) > 0.1


def test_counted_survives_hopeless_and_certain_logits() -> None:
    videos, sampling = packed(20), SAMPLINGS["counted"]
    for value, count in ((-300.0, 1), (300.0, 20)):
        leaf = torch.full((20,), value, requires_grad=True)
        rollout = Counted(deviation=1e-3).sample(leaf, videos, int32(0), 3, int64(1))
        assert (rollout.selection.keep == count).all()
        factors = sampling.log_prob(leaf, videos, rollout)
        (gradient,) = torch.autograd.grad(factors["count"].sum() + factors["subset"].sum(), leaf)
        assert gradient.isfinite().all()
        assert torch.stack(list(factors.values())).isfinite().all()


@pytest.mark.parametrize("name", SAMPLINGS)
def test_sampling_builds_no_graph_and_log_prob_does(name: str) -> None:
    leaf = LOGITS.clone().requires_grad_()
    rollout = SAMPLINGS[name].sample(leaf, packed(4), int32(2), 2, int64(1))
    assert not any(tensor.requires_grad for tensor in rollout.actions.values())
    assert all(value.requires_grad for value in SAMPLINGS[name].log_prob(leaf, packed(4), rollout).values())


@pytest.mark.parametrize("name", SAMPLINGS)
def test_wrong_arguments(name: str) -> None:
    sampling, videos = SAMPLINGS[name], packed(4)
    with pytest.raises(ValueError, match=r"logits must be finite, got 2 of 4"):
        sampling.sample(torch.tensor([0.0, math.nan, 1.0, -math.inf]), videos, int32(1), 2, int64(1))
    with pytest.raises(ValueError, match=r"logits must be \[4\]"):
        sampling.sample(torch.zeros(5), videos, int32(1), 2, int64(1))
    with pytest.raises(ValueError, match=r"seed must be \[1\]"):
        sampling.sample(LOGITS, videos, int32(1), 2, int64(1, 2))
    with pytest.raises(TypeError, match="logits must be float32"):
        sampling.sample(LOGITS.double(), videos, int32(1), 2, int64(1))


def test_budget_beyond_a_video() -> None:
    with pytest.raises(ValueError, match="keep"):
        SAMPLINGS["exact"].sample(LOGITS, packed(4), int32(5), 2, int64(1))


@pytest.mark.parametrize("deviation", [0.0, -1.0, math.inf, math.nan])
def test_wrong_deviation(deviation: float) -> None:
    with pytest.raises(ValueError, match="deviation must be finite and above 0"):
        Counted(deviation)
