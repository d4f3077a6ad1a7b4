"""compress: equal to surprise, select and gather one after the other, in one call."""

from __future__ import annotations

import itertools

import pytest
import torch
from batches import LAYOUTS, Layout, generator, int32, layouts, seeds, token_dtypes, widths
from hypothesis import given, settings
from hypothesis import strategies as st

import score_ext
from score_ext import reference


@settings(max_examples=100, deadline=None)
@given(
    layouts(),
    widths,
    token_dtypes,
    st.sampled_from(["topk", "systematic"]),
    st.booleans(),
    st.floats(0, 1, exclude_max=True),
    seeds,
)
def test_equals_its_parts(
    layout: Layout, width: int, dtype: torch.dtype, selection: str, scored: bool, offset: float, seed: int
) -> None:
    tokens = layout.tokens(width, dtype, seed)
    packed = layout.cu_seqlens, layout.tokens_per_frame
    keep, total_keep = layout.keep(seed)
    scores = layout.scores(seed) if scored else None
    kept, index, cu_kept = score_ext.compress(tokens, *packed, keep, total_keep, scores, selection, offset)
    if scores is None:
        scores = score_ext.surprise(tokens, *packed)
    expected = score_ext.select(scores, packed[0], keep, total_keep, selection, offset)
    assert torch.equal(index, expected)
    assert kept.dtype == dtype
    assert torch.equal(kept, tokens[expected])
    assert cu_kept.dtype == torch.int32
    assert cu_kept.tolist() == [0, *keep.cumsum(0).tolist()]
    for span, kept_span in zip(layout.spans(), itertools.pairwise(cu_kept), strict=True):
        rows = index[kept_span[0] : kept_span[1]]
        assert ((rows >= span.start) & (rows < span.stop)).all()


@pytest.mark.parametrize("name", sorted(LAYOUTS))
@pytest.mark.parametrize("selection", ["topk", "systematic"])
def test_equals_reference(name: str, selection: str) -> None:
    layout = LAYOUTS[name]
    keep, total_keep = layout.keep(0)
    arguments = (
        layout.tokens(5),
        layout.cu_seqlens,
        layout.tokens_per_frame,
        keep,
        total_keep,
        layout.scores(1),
        selection,
    )
    for actual, expected in zip(score_ext.compress(*arguments), reference.compress(*arguments), strict=True):
        assert torch.equal(actual, expected)


def test_gradient_is_that_of_the_gathered_rows() -> None:
    layout = LAYOUTS["ragged"]
    keep, total_keep = layout.keep(0)
    tokens = layout.tokens(5).requires_grad_()
    kept, index, cu_kept = score_ext.compress(tokens, layout.cu_seqlens, layout.tokens_per_frame, keep, total_keep)
    assert not index.requires_grad
    assert not cu_kept.requires_grad
    weight = torch.randn(total_keep, 5, generator=generator(0))
    (gradient,) = torch.autograd.grad((kept * weight).sum(), tokens)
    expected = torch.zeros_like(gradient)
    expected[index] = weight
    assert torch.equal(gradient, expected)


def test_first_frames_are_kept_first() -> None:
    """By the default score, +inf for them."""
    layout = Layout(((4, 6), (5, 3)))
    kept, index, _ = score_ext.compress(layout.tokens(8), layout.cu_seqlens, layout.tokens_per_frame, int32(6, 3), 9)
    assert index.tolist() == [0, 1, 2, 3, 4, 5, 24, 25, 26]
    assert torch.equal(kept, layout.tokens(8)[index])


def test_what_moves_is_kept() -> None:
    still = torch.randn(1, 10, 8, generator=generator(0)).expand(5, 10, 8).clone()
    still[3, 7] += 4.0  # moves in frame 3, and back in frame 4
    tokens = still.reshape(50, 8)
    _, index, _ = score_ext.compress(tokens, int32(0, 50), int32(10), int32(12), 12)
    assert index.tolist() == [*range(10), 37, 47]
