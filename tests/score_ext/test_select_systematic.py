"""select by systematic sampling: exact counts, even prefixes, the right inclusion probabilities."""

from __future__ import annotations

import math

import pytest
import torch
from batches import SCORE_KINDS, Layout, generator, int32, layouts, scores_of_kind, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import score_ext
from score_ext import reference

# Around the sizes from which the solver starts from a subsample (every 2nd of 8192 and more) and shares its sums among
# threads (2^14 each).
SIZES = (1, 2, 4095, 4096, 8191, 8192, 8193, 12289)
THREAD_SIZES = (16383, 32767, 32768, 32769, 65537, 131073)
# The probabilities sum to k within one part in 2^17 of it, and every one is rounded to 2^-30.
SUM_TOLERANCE = 2.0**-17


def select(scores: Tensor, keep: int, offset: float = 0.5) -> Tensor:
    """The kept tokens of one video."""
    return score_ext.select(scores, int32(0, len(scores)), int32(keep), keep, "systematic", offset)


def assert_equals_reference(scores: Tensor, keep: int) -> None:
    index = select(scores, keep, 0.75)
    expected = reference.select(scores, int32(0, len(scores)), int32(keep), keep, "systematic", 0.75)
    assert torch.equal(index, expected)
    assert len(index) == keep


def inclusion_probabilities(logits: Tensor, keep: int) -> Tensor:
    """sigmoid(logit + c) that sum to keep: by bisection in float64, independent of the solver's arithmetic."""
    wide = logits.double()
    low, high = -float(wide.max()) - 800.0, -float(wide.min()) + 800.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if float(torch.sigmoid(wide + middle).sum()) < keep else (low, middle)
    return torch.sigmoid(wide + high)


@settings(max_examples=150, deadline=None)
@given(layouts(max_videos=4), st.sampled_from(SCORE_KINDS), st.floats(0, 1, exclude_max=True), seeds)
def test_equals_reference(layout: Layout, kind: str, offset: float, seed: int) -> None:
    scores = scores_of_kind(kind, layout.length, seed)
    keep, total_keep = layout.keep(seed)
    arguments = scores, layout.cu_seqlens, keep, total_keep, "systematic", offset
    index = score_ext.select(*arguments)
    assert torch.equal(index, reference.select(*arguments))
    for span, count in zip(layout.spans(), keep.tolist(), strict=True):
        assert int(((index >= span.start) & (index < span.stop)).sum()) == count
    assert (index.diff() > 0).all()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", SCORE_KINDS)
def test_sizes_around_the_subsample_equal_reference(size: int, kind: str) -> None:
    scores = scores_of_kind(kind, size, seed=size)
    for keep in sorted({0, 1, size // 10, size - 1, size}):
        assert_equals_reference(scores, keep)


@pytest.mark.parametrize("size", THREAD_SIZES)
@pytest.mark.parametrize("kind", ["normal", "ties", "mixed"])
def test_videos_worth_several_threads_equal_reference(size: int, kind: str) -> None:
    assert_equals_reference(scores_of_kind(kind, size, seed=size), size // 10)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 400), st.floats(0.01, 60.0), st.floats(0, 1, exclude_max=True), seeds, st.data())
def test_every_prefix_is_within_one_of_its_summed_probabilities(
    size: int, scale: float, offset: float, seed: int, data: st.DataObject
) -> None:
    logits = torch.randn(size, generator=generator(seed)) * scale
    keep = data.draw(st.integers(1, size))
    kept = torch.zeros(size, dtype=torch.float64)
    kept[select(logits, keep, offset)] = 1
    expected = inclusion_probabilities(logits, keep) if keep < size else torch.ones(size, dtype=torch.float64)
    drift = (kept.cumsum(0) - expected.cumsum(0)).abs().max()
    assert drift < 1 + keep * SUM_TOLERANCE + size * 1e-6  # and the float32 rounding of each sigmoid


@pytest.mark.parametrize("seed", range(6))
def test_inclusion_frequencies_over_offsets_are_the_probabilities(seed: int) -> None:
    """The offset is the only randomness: over a fine grid of it each token is kept a share pi_i of the time."""
    size, keep, steps = 40, 11, 2000
    logits = torch.randn(size, generator=generator(seed)) * 2
    counts = torch.zeros(size)
    for step in range(steps):
        counts[select(logits, keep, (step + 0.5) / steps)] += 1
    expected = inclusion_probabilities(logits, keep)
    # A token is kept on an interval of offsets, or two: its ends fall between grid points.
    torch.testing.assert_close((counts / steps).double(), expected, rtol=0, atol=2.5 / steps)


@pytest.mark.parametrize("steps", [997])
def test_equal_scores_are_kept_at_equal_steps(steps: int) -> None:
    index = select(torch.zeros(steps * 7), steps)
    gaps = index.diff()
    assert set(gaps.tolist()) <= {6, 7, 8}
    assert index[0] == 3


@pytest.mark.parametrize("scale", [1e30, 1e20, 1e8, 1e-3, 1e-30, 1e-45])
def test_extreme_magnitudes_keep_exact_counts(scale: float) -> None:
    logits = (torch.rand(1000, generator=generator(1)) * 2 - 1) * scale
    for keep in (1, 100, 999):
        index = select(logits, keep)
        assert len(index) == len(index.unique()) == keep
        if scale >= 1e8:  # differences so large that the sigmoid is a step: the largest are certain
            largest = logits.topk(keep).indices.sort().values
            assert len(set(index.tolist()) ^ set(largest.tolist())) <= 2  # but for those on the step


@pytest.mark.parametrize("offset", [0.0, 0.3, 0.5, 1 - 2**-53])
def test_infinite_logits_are_certain(offset: float) -> None:
    logits = torch.randn(60, generator=generator(2))
    always, never = [0, 7, 8, 59], [1, 2, 30]
    logits[always] = math.inf
    logits[never] = -math.inf
    logits[40] = math.nan
    for keep in range(61):
        index = select(logits, keep, offset).tolist()
        assert len(index) == keep
        if keep >= len(always):
            assert set(always) <= set(index)
        else:
            assert set(index) <= set(always)
        if keep <= 60 - len(never) - 1:
            assert not set(index) & {*never, 40}


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 0.0, 1e31, -1e31])
def test_equally_likely_classes_are_spread_evenly(value: float) -> None:
    logits = torch.full((100,), value)
    assert select(logits, 10).tolist() == list(range(5, 100, 10)) or select(logits, 10).diff().unique().tolist() == [10]
    counts = torch.zeros(100)
    for step in range(200):
        counts[select(logits, 10, (step + 0.5) / 200)] += 1
    assert (counts == 20).all()


def test_magnitudes_beyond_1e30_count_as_infinite() -> None:
    logits = torch.tensor([2e30, math.inf, 0.0, -2e30, math.nan, 5.0])
    assert select(logits, 2).tolist() == [0, 1]
    assert select(logits, 4).tolist() == [0, 1, 2, 5]
    within = torch.tensor([9e29, 1.0, 0.0, -9e29])
    assert select(within, 1).tolist() == [0]
    assert select(within, 3).tolist() == [0, 1, 2]


def test_adding_a_constant_changes_nothing() -> None:
    """c takes it up. Exact logits, so that adding rounds nothing."""
    logits = torch.randint(-64, 64, (500,), generator=generator(0)) / 16
    assert torch.equal(select(logits, 50), select(logits + 32.0, 50))


def test_spreads_over_time_where_topk_does_not() -> None:
    """Why it is the default for inference: one object in sixteen frames is not taken sixteen times."""
    frames, tokens = 16, 50
    logits = torch.zeros(frames, tokens)
    logits[:, 10:20] = 3.0
    flat = logits.flatten()
    by_rank = score_ext.select(flat, int32(0, 800), int32(160), 160)
    assert set((by_rank % tokens).tolist()) == set(range(10, 20))
    index = select(flat, 160)
    per_frame = torch.bincount(index // tokens, minlength=frames)
    assert per_frame.min() >= 9 and per_frame.max() <= 11
    assert not set((index % tokens).tolist()) <= set(range(10, 20))
