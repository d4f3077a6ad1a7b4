"""select by rank: exactly the largest, ties to the lower index, NaN last."""

from __future__ import annotations

import math

import pytest
import torch
from batches import LAYOUTS, SCORE_KINDS, Layout, generator, int32, layouts, scores_of_kind, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

import score_ext
from score_ext import reference

# Around the number of buckets of a rank's digit (2^11), a thread's share of a video's scores (2^16) and twice that.
SIZES = (1, 2, 2047, 2049, 8192, 16385)
THREAD_SIZES = (65535, 65537, 131071, 131072, 131073, 200003)


def by_falling_score(row_and_score: tuple[int, float]) -> tuple[bool, float, int]:
    """The contract as a key of Python's sort."""
    row, score = row_and_score
    return math.isnan(score), 0.0 if math.isnan(score) else -score, row


def assert_equals_reference(scores: torch.Tensor, budgets: list[int]) -> None:
    cu_seqlens = int32(0, len(scores))
    for keep in budgets:
        index = score_ext.select(scores, cu_seqlens, int32(keep), keep)
        assert torch.equal(index, reference.select(scores, cu_seqlens, int32(keep), keep))


@settings(max_examples=150, deadline=None)
@given(layouts(max_videos=4), st.sampled_from(SCORE_KINDS), seeds)
def test_equals_reference_and_sorting(layout: Layout, kind: str, seed: int) -> None:
    scores = scores_of_kind(kind, layout.length, seed)
    keep, total_keep = layout.keep(seed)
    index = score_ext.select(scores, layout.cu_seqlens, keep, total_keep)
    assert torch.equal(index, reference.select(scores, layout.cu_seqlens, keep, total_keep))
    expected = []
    for span, count in zip(layout.spans(), keep.tolist(), strict=True):
        order = sorted(enumerate(scores[span].tolist(), span.start), key=by_falling_score)
        expected += sorted(row for row, _ in order[:count])
    assert index.tolist() == expected


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", SCORE_KINDS)
def test_large_videos_equal_reference(size: int, kind: str) -> None:
    assert_equals_reference(scores_of_kind(kind, size, seed=size), [0, 1, size // 10, size - 1, size])


@pytest.mark.parametrize("size", THREAD_SIZES)
@pytest.mark.parametrize("kind", ["normal", "ties", "mixed"])
def test_videos_worth_several_threads_equal_reference(size: int, kind: str) -> None:
    assert_equals_reference(scores_of_kind(kind, size, seed=size), [size // 10, size // 2])


@pytest.mark.parametrize("keep", range(9))
def test_zeros_of_both_signs_tie(keep: int) -> None:
    scores = torch.tensor([-0.0, 0.0, -0.0, 0.0, 0.0, -0.0, -1.0, 1.0])
    index = score_ext.select(scores, int32(0, 8), int32(keep), keep)
    assert index.tolist() == sorted([7, 0, 1, 2, 3, 4, 5, 6][:keep])


@pytest.mark.parametrize("keep", range(8))
def test_order_of_special_values(keep: int) -> None:
    negative_nan = torch.tensor([-1], dtype=torch.int32).view(torch.float32)
    scores = torch.tensor([math.nan, -math.inf, 1e-45, math.inf, -1e-45, 0.0, 3.4e38])
    scores = torch.cat([scores, negative_nan])
    ranking = [3, 6, 2, 5, 4, 1, 0, 7]
    index = score_ext.select(scores, int32(0, 8), int32(keep), keep)
    assert index.tolist() == sorted(ranking[:keep])


@pytest.mark.parametrize("name", sorted(LAYOUTS))
@pytest.mark.parametrize("selection", ["topk", "systematic"])
def test_nothing_and_everything(name: str, selection: str) -> None:
    layout = LAYOUTS[name]
    scores = layout.scores()
    nothing = torch.zeros(len(layout.videos), dtype=torch.int32)
    assert score_ext.select(scores, layout.cu_seqlens, nothing, 0, selection).tolist() == []
    everything = int32(*layout.lengths)
    index = score_ext.select(scores, layout.cu_seqlens, everything, layout.length, selection)
    assert torch.equal(index, torch.arange(layout.length))


@pytest.mark.parametrize("shift", [0, 9, 10, 11, 20, 21, 22])
def test_every_digit_of_a_rank_decides(shift: int) -> None:
    """Scores that differ in few neighbouring bits only: each digit of the threshold's search, and its borders."""
    patterns = 0x3F000000 ^ (torch.randint(0, 8, (300,), generator=generator(shift)) << shift)
    scores = patterns.int().view(torch.float32)
    assert_equals_reference(scores, list(range(0, 301, 7)))
