"""surprise: how much each token differs from the one before it."""

from __future__ import annotations

import math

import pytest
import torch
from batches import LAYOUTS, TOKEN_DTYPES, WIDTHS, Layout, int32, layouts, seeds, token_dtypes, widths
from hypothesis import example, given, settings
from hypothesis import strategies as st

import score_ext
from score_ext import reference

METRICS = ("cosine", "l2")


def assert_surprise_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    # float32 sums in another order: relative errors of some 1e-6, and for cosine an absolute one of 1 - cos near 0.
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=2e-6, equal_nan=True)


@settings(max_examples=150, deadline=None)
@given(layouts(), widths, token_dtypes, st.sampled_from(METRICS), seeds)
@example(LAYOUTS["long"], 5, torch.float32, "cosine", 0)
@example(LAYOUTS["long"], 5, torch.bfloat16, "l2", 0)
@example(LAYOUTS["empty_frames"], 5, torch.float32, "cosine", 0)
@example(Layout(((3, 1030),)), 3, torch.float32, "cosine", 0)  # more places than a work item follows
@example(Layout(((70, 40),)), 1024, torch.float16, "cosine", 0)  # several blocks of places and runs of frames
def test_equals_reference(layout: Layout, width: int, dtype: torch.dtype, metric: str, seed: int) -> None:
    tokens = layout.tokens(width, dtype, seed)
    arguments = tokens, layout.cu_seqlens, layout.tokens_per_frame, metric, 7.5
    assert_surprise_close(score_ext.surprise(*arguments), reference.surprise(*arguments))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
def test_every_width_against_float64(width: int, metric: str, dtype: torch.dtype) -> None:
    layout = LAYOUTS["ragged"]
    tokens = layout.tokens(width, dtype)
    actual = score_ext.surprise(tokens, layout.cu_seqlens, layout.tokens_per_frame, metric, 0.0)
    assert actual.dtype == torch.float32
    for span, step in zip(layout.spans(), layout.tokens_per_frame.tolist(), strict=True):
        x = tokens[span].double()
        later, before = x[step:], x[: max(len(x) - step, 0)]
        if metric == "cosine":
            expected = 1 - torch.nn.functional.cosine_similarity(later, before, dim=1)
        else:
            expected = (later - before).norm(dim=1)
        assert (actual[span][:step] == 0.0).all()
        assert_surprise_close(actual[span][step:], expected.float())


@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
@pytest.mark.parametrize("width", [1, 3, 33, 100, 3584])
@pytest.mark.parametrize("metric", METRICS)
def test_what_does_not_move_is_exactly_zero(dtype: torch.dtype, width: int, metric: str) -> None:
    frame = Layout(((1, 9),)).tokens(width, dtype)
    still = frame.repeat(70, 1)
    values = score_ext.surprise(still, int32(0, len(still)), int32(9), metric, 0.0)
    assert (values == 0.0).all()


def test_first_frames_get_the_value_named_for_them() -> None:
    layout = LAYOUTS["ragged"]
    tokens = layout.tokens(4)
    for value in (math.inf, -math.inf, 0.0, 2.5, -3.0):
        result = score_ext.surprise(tokens, layout.cu_seqlens, layout.tokens_per_frame, first=value)
        for span, step in zip(layout.spans(), layout.tokens_per_frame.tolist(), strict=True):
            assert (result[span][:step] == value).all()
            assert (result[span][step:] != value).all()
    default = score_ext.surprise(tokens, layout.cu_seqlens, layout.tokens_per_frame)
    unnamed = torch.ops.score.surprise(tokens, layout.cu_seqlens, layout.tokens_per_frame)
    assert default[0] == math.inf
    assert torch.equal(default, unnamed)


def test_cosine_of_opposite_parallel_and_zero_tokens() -> None:
    base = torch.tensor([3.0, -4.0, 12.0])
    tokens = torch.stack([base, -base, -2 * base, torch.zeros(3), torch.zeros(3), base])
    values = score_ext.surprise(tokens, int32(0, 6), int32(1), first=0.0)
    torch.testing.assert_close(values, torch.tensor([0.0, 2.0, 0.0, 1.0, 1.0, 1.0]))


def test_l2_by_hand() -> None:
    tokens = torch.tensor([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [3.0, -1.0]])
    values = score_ext.surprise(tokens, int32(0, 4), int32(1), "l2", 0.0)
    assert values.tolist() == [0.0, 5.0, 0.0, 5.0]


@pytest.mark.parametrize("scale", [1e-18, 1e-12, 1e12, 1e18])
def test_cosine_does_not_depend_on_magnitude(scale: float) -> None:
    layout = LAYOUTS["ragged"]
    tokens = layout.tokens(16)
    packed = layout.cu_seqlens, layout.tokens_per_frame
    # The squares of these stay floats; their product, |x|^2 |p|^2, would not.
    assert_surprise_close(score_ext.surprise(tokens * scale, *packed), score_ext.surprise(tokens, *packed))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("place", [0, 5, 16, 36])
def test_nan_reaches_its_token_and_the_next_frames(metric: str, place: int) -> None:
    tokens = Layout(((4, 3),)).tokens(37)
    tokens[4, place] = math.nan
    values = score_ext.surprise(tokens, int32(0, 12), int32(3), metric, 0.0)
    assert values.isnan().nonzero().flatten().tolist() == [4, 7]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("width", [1, 7, 64, 257])
@pytest.mark.parametrize("special", [math.nan, math.inf, -math.inf])
def test_nan_and_infinity_beside_zero_tokens_are_nan_by_cosine(special: float, width: int, dtype: torch.dtype) -> None:
    tokens = torch.zeros(6, width, dtype=dtype)
    tokens[1, width // 2] = special
    tokens[3] = special
    values = score_ext.surprise(tokens, int32(0, 6), int32(1), first=0.0)
    assert values.isnan().tolist() == [False, True, True, True, True, False]
    assert values[5] == 1.0


def test_infinite_tokens_are_nan_by_cosine_and_infinite_by_l2() -> None:
    tokens = Layout(((3, 1),)).tokens(8)
    tokens[1, 2] = math.inf
    packed = int32(0, 3), int32(1)
    assert score_ext.surprise(tokens, *packed, "cosine", 0.0)[1:].isnan().all()
    assert score_ext.surprise(tokens, *packed, "l2", 0.0).tolist() == [0.0, math.inf, math.inf]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("name", sorted(LAYOUTS))
def test_gradient_equals_reference(metric: str, name: str) -> None:
    layout = LAYOUTS[name]
    packed = layout.cu_seqlens, layout.tokens_per_frame
    weight = layout.scores(seed=1)
    gradients = []
    for function in (score_ext.surprise, reference.surprise):
        tokens = layout.tokens(11).requires_grad_()
        values = function(tokens, *packed, metric, 0.0)
        gradients.append(torch.autograd.grad((values * weight).sum(), tokens)[0])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_gradient_equals_finite_differences(metric: str) -> None:
    layout = Layout(((4, 3), (2, 2)))
    packed = layout.cu_seqlens, layout.tokens_per_frame
    tokens = layout.tokens(5).requires_grad_()
    weight = layout.scores(seed=1)
    (gradient,) = torch.autograd.grad((score_ext.surprise(tokens, *packed, metric, 0.0) * weight).sum(), tokens)

    def objective(x: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for span, step in zip(layout.spans(), layout.tokens_per_frame.tolist(), strict=True):
            later, before = x[span][step:], x[span][:-step]
            if metric == "cosine":
                value = 1 - torch.nn.functional.cosine_similarity(later, before, dim=1)
            else:
                value = (later - before).norm(dim=1)
            total = total + (value * weight[span][step:].double()).sum()
        return total

    wide = tokens.detach().double()
    step_size = 1e-6
    numeric = torch.zeros_like(wide)
    for i in range(wide.numel()):
        change = torch.zeros(wide.numel(), dtype=torch.float64)
        change[i] = step_size
        change = change.view_as(wide)
        numeric.view(-1)[i] = (objective(wide + change) - objective(wide - change)) / (2 * step_size)
    torch.testing.assert_close(gradient.double(), numeric, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
def test_gradient_where_nothing_moves_is_finite(dtype: torch.dtype) -> None:
    for frame in (torch.randn(2, 6), torch.zeros(2, 6)):
        for metric in METRICS:
            tokens = frame.repeat(3, 1).to(dtype).requires_grad_()
            score_ext.surprise(tokens, int32(0, 6), int32(2), metric, 0.0).sum().backward()
            assert tokens.grad.dtype == dtype
            assert tokens.grad.isfinite().all()


def test_gradient_of_infinite_first_frames_is_finite() -> None:
    tokens = torch.randn(6, 4, requires_grad=True)
    values = score_ext.surprise(tokens, int32(0, 6), int32(2))
    values[2:].sum().backward()
    assert tokens.grad.isfinite().all()
