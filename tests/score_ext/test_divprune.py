"""divprune: always the token whose nearest taken one is furthest, to the bit as the reference has it."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from batches import (
    LAYOUTS,
    TOKEN_DTYPES,
    WIDTHS,
    Layout,
    generator,
    int32,
    layouts,
    seeds,
    token_dtypes,
    widths,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import score_ext
from score_ext import reference

KINDS = ("normal", "signs", "still", "clusters", "sparse", "wide", "special")


def tokens_of_kind(kind: str, length: int, width: int, dtype: torch.dtype, seed: int) -> Tensor:
    """[length, width] of the sort that distances are equal among, or hard to compute."""
    random = generator(seed)
    normal = torch.randn(length, width, generator=random)
    match kind:
        case "normal":
            tokens = normal
        case "signs":  # all of one length, products small integers: ties without rounding
            tokens = normal.sign()
        case "still":  # copies of five
            tokens = normal[torch.randint(0, min(5, length), (length,), generator=random)] if length else normal
        case "clusters":
            tokens = normal * 1e-3 + torch.randn(width, generator=random)
        case "sparse":  # many zero tokens
            tokens = normal * (torch.rand(length, width, generator=random) < 0.1)
        case "wide":  # squares that are no floats, in float32 and bfloat16
            tokens = normal * 10 ** (torch.rand(length, 1, generator=random) * 74 - 37)
        case "special":
            pick = torch.randint(0, 4 * width, (length, 1), generator=random)
            hit = torch.arange(width) == pick
            value = torch.tensor([math.nan, math.inf, -math.inf])[pick % 3]
            tokens = torch.where(hit, value, normal)
        case _:
            raise ValueError(kind)
    return tokens.to(dtype)


WEIGHTS = ("none", "near 1", "few values", "wide", "special")


def weights_of_kind(kind: str, length: int, seed: int) -> Tensor | None:
    random = generator(seed + 1)
    normal = torch.randn(length, generator=random)
    match kind:
        case "none":
            return None
        case "near 1":
            return (0.1 * normal).exp()
        case "few values":  # so that scores tie
            return torch.randint(0, 3, (length,), generator=random).float()
        case "wide":  # some too small for a float times a distance
            return 10 ** (torch.rand(length, generator=random) * 80 - 45)
        case "special":
            odd = torch.tensor([math.nan, math.inf, -math.inf, -1.0, 0.0, -0.0, 3e38, 1e-45])
            drawn = torch.randint(0, 16, (length,), generator=random)
            return torch.where(drawn < 8, odd[drawn.clamp(max=7)], normal.exp())
        case _:
            raise ValueError(kind)


def assert_equals_reference(tokens: Tensor, cu_seqlens: Tensor, keep: Tensor, weights: Tensor | None = None) -> None:
    order = score_ext.divprune(tokens, cu_seqlens, keep, ordered=True, weights=weights)
    assert torch.equal(order, reference.divprune(tokens, cu_seqlens, keep, ordered=True, weights=weights))
    assert torch.equal(score_ext.divprune(tokens, cu_seqlens, keep, weights=weights), order.sort().values)


@settings(max_examples=150, deadline=None)
@given(layouts(max_videos=3), st.sampled_from(KINDS), st.sampled_from(WEIGHTS), widths, token_dtypes, seeds)
def test_equals_reference(layout: Layout, kind: str, weighting: str, width: int, dtype: torch.dtype, seed: int) -> None:
    tokens = tokens_of_kind(kind, layout.length, width, dtype, seed)
    weights = weights_of_kind(weighting, layout.length, seed)
    assert_equals_reference(tokens, layout.cu_seqlens, layout.keep(seed)[0], weights)


@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
@pytest.mark.parametrize("width", WIDTHS)
def test_every_width(width: int, dtype: torch.dtype) -> None:
    tokens = tokens_of_kind("normal", 90, width, dtype, width)
    assert_equals_reference(tokens, int32(0, 90), int32(45))


# More rows than are compared at a time (512), and more kept ones than come from the cache together (2^16 floats).
@pytest.mark.parametrize(
    ("kind", "weighting"), [*((kind, "none") for kind in KINDS), *(("normal", weighting) for weighting in WEIGHTS[1:])]
)
@pytest.mark.parametrize(("length", "width", "keep"), [(1100, 17, 700), (600, 1024, 90)])
def test_large_videos_equal_reference(length: int, width: int, keep: int, kind: str, weighting: str) -> None:
    tokens = tokens_of_kind(kind, length, width, torch.float32, length)
    assert_equals_reference(tokens, int32(0, length), int32(keep), weights_of_kind(weighting, length, length))


def test_a_weight_is_worth_as_much_as_a_distance() -> None:
    """By definition: the largest product of both, in float64."""
    x = np.random.default_rng(7).normal(size=(200, 12)).astype(np.float32)
    weights = np.random.default_rng(8).uniform(0.2, 2, 200).astype(np.float32)
    unit = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    mean = unit.sum(0) / np.linalg.norm(unit.sum(0))
    nearest, taken = 1 - unit @ mean, []
    for _ in range(60):
        score = nearest * weights
        score[taken] = -1
        taken.append(int(score.argmax()))
        nearest = (1 - unit @ unit[taken].T).min(1)
    tensors = torch.from_numpy(x), int32(0, 200), int32(60)
    assert score_ext.divprune(*tensors, ordered=True, weights=torch.from_numpy(weights)).tolist() == taken


@pytest.mark.parametrize("weight", [1e-45, 3e-45, 1e-39, 1.2e-38])
def test_weights_too_small_for_rounding_to_be_relative(weight: float) -> None:
    """Scores tie there where distances do not: a token that was not asked again must not come up for ever."""
    for seed in range(20):
        tokens = torch.randn(12, 3, generator=generator(seed))
        assert_equals_reference(tokens, int32(0, 12), int32(9), torch.full((12,), weight))


def test_weights_are_one_for_each_token() -> None:
    with pytest.raises(ValueError, match=r"weights must be \[10\], one for each token, got float32 \[9\]"):
        score_ext.divprune(torch.randn(10, 3), int32(0, 10), int32(2), weights=torch.ones(9))


@pytest.mark.parametrize("seed", range(4))
def test_by_definition(seed: int) -> None:
    """In float64, from all distances; those of random tokens are further apart than rounding."""
    x = np.random.default_rng(seed).normal(size=(200, 12)).astype(np.float32)
    unit = x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    distance = 1 - unit @ unit.T
    taken = [int((unit @ unit.sum(0)).argmin())]
    while len(taken) < 60:
        nearest = distance[:, taken].min(1)
        nearest[taken] = -1
        taken.append(int(nearest.argmax()))
    order = score_ext.divprune(torch.from_numpy(x), int32(0, 200), int32(60), ordered=True)
    assert order.tolist() == taken


@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
@pytest.mark.parametrize("width", [1, 15, 16, 100])
def test_equal_tokens_tie(width: int, dtype: torch.dtype) -> None:
    """A still video: every frame is the first one, and what is left over goes to the lowest rows."""
    frame = torch.randn(4, width, generator=generator(1)).abs() + torch.eye(4, width)
    tokens = frame.repeat(5, 1).to(dtype)
    order = score_ext.divprune(tokens, int32(0, 20), int32(20), ordered=True).tolist()
    distinct = 1 if width == 1 else 4
    assert max(order[:distinct]) < 4
    assert order[distinct:] == sorted(order[distinct:])


def test_tokens_without_a_direction_are_at_distance_1() -> None:
    """Zero, NaN and infinite ones: as if at a right angle to everything, the mean and each other too."""
    degrees = torch.tensor([0.0, 30.0, 80.0, 130.0])
    tokens = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], dim=1)
    without = torch.tensor([[0.0, 0.0], [math.nan, 1.0], [1.0, -math.inf]])
    # The mean points to some 57 degrees, and all others are nearer to it than a right angle: the zero token is first.
    # Then all are at distance 1, and 0 is the lowest row; then still at distance 1 are 130 degrees and those without.
    order = score_ext.divprune(torch.cat([tokens, without]), int32(0, 7), int32(7), ordered=True)
    assert order.tolist() == [4, 0, 3, 5, 6, 2, 1]


@pytest.mark.parametrize("exponent", [-148, -140, -70, -50, 0, 62, 64, 100, 126])
def test_scaling_by_a_power_of_two_changes_nothing(exponent: int) -> None:
    tokens = torch.randint(1, 4, (60, 9), generator=generator(3)).float()
    packed = int32(0, 60), int32(40)
    expected = score_ext.divprune(tokens, *packed, ordered=True)
    scaled = tokens.double() * 2.0**exponent
    assert torch.equal(score_ext.divprune(scaled.float(), *packed, ordered=True), expected)
    mixed = torch.where(torch.arange(60)[:, None] % 2 == 0, scaled, tokens.double()).float()
    assert torch.equal(score_ext.divprune(mixed, *packed, ordered=True), expected)


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_nothing_and_everything(name: str, ordered: bool) -> None:
    layout = LAYOUTS[name]
    tokens = layout.tokens(6)
    nothing = torch.zeros(len(layout.videos), dtype=torch.int32)
    assert score_ext.divprune(tokens, layout.cu_seqlens, nothing, 0, ordered).tolist() == []
    everything = score_ext.divprune(tokens, layout.cu_seqlens, int32(*layout.lengths), layout.length, ordered)
    assert everything.sort().values.tolist() == list(range(layout.length))
    if not ordered:
        assert everything.tolist() == list(range(layout.length))


def test_a_smaller_budget_takes_the_first() -> None:
    tokens = tokens_of_kind("still", 80, 7, torch.float32, 2)
    order = score_ext.divprune(tokens, int32(0, 80), int32(80), ordered=True)
    for keep in (1, 2, 5, 6, 40, 79):
        assert torch.equal(score_ext.divprune(tokens, int32(0, 80), int32(keep), ordered=True), order[:keep])


def test_videos_do_not_touch_each_other() -> None:
    layout = LAYOUTS["ragged"]
    tokens, (keep, _) = layout.tokens(9), layout.keep(5)
    alone = [
        span.start + score_ext.divprune(tokens[span], int32(0, span.stop - span.start), count[None])
        for span, count in zip(layout.spans(), keep, strict=True)
    ]
    assert torch.equal(score_ext.divprune(tokens, layout.cu_seqlens, keep), torch.cat(alone))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("lengths", [(3000,), (2000, 0, 700, 300)])
@pytest.mark.parametrize("kind", ["normal", "signs", "wide"])
def test_number_of_threads_changes_nothing(lengths: tuple[int, ...], kind: str, threads: None) -> None:
    """Videos large enough for every step to be shared among threads."""
    layout = Layout(tuple((length, 1) for length in lengths))
    tokens = tokens_of_kind(kind, layout.length, 500, torch.bfloat16, 4)
    keep = int32(*(length // 20 for length in lengths))
    orders = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        orders.append(score_ext.divprune(tokens, layout.cu_seqlens, keep, ordered=True))
    assert torch.equal(orders[1], orders[0])
    assert torch.equal(orders[2], orders[0])
