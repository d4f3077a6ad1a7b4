"""Every finite float32 and bfloat16 token is in range, from 1e-38 to 1e38: squares that are no floats do not show."""

from __future__ import annotations

import math

import pytest
import torch
from batches import LAYOUTS, Layout, generator, int32
from cases import linear_layers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import score_ext
from score_ext import reference

METRICS = ("cosine", "l2")
WIDE_DTYPES = (torch.float32, torch.bfloat16)
exponents = st.floats(-38, 38)


def scaled_tokens(layout: Layout, width: int, dtype: torch.dtype, low: float, high: float, seed: int) -> Tensor:
    """Tokens of sizes between 10^low and 10^high, another one for each token; none infinite."""
    random = generator(seed)
    exponent = low + (high - low) * torch.rand(layout.length, 1, generator=random, dtype=torch.float64)
    values = torch.randn(layout.length, width, generator=random, dtype=torch.float64) * 10**exponent
    limit = torch.finfo(dtype).max
    return values.clamp(-limit, limit).to(dtype)


def previous_rows(layout: Layout) -> Tensor:
    """The row of the frame before, or -1."""
    previous = torch.full((layout.length,), -1)
    for span, step in zip(layout.spans(), layout.tokens_per_frame.tolist(), strict=True):
        if span.stop - span.start > step:
            previous[span.start + step : span.stop] = torch.arange(span.start, span.stop - step)
    return previous


def float64_surprise(tokens: Tensor, layout: Layout, metric: str) -> Tensor:
    """By definition, each token brought to size 1 before it is squared; 7.5 in first frames."""
    out = torch.full((layout.length,), 7.5, dtype=torch.float64)
    for row, before in enumerate(previous_rows(layout).tolist()):
        if before < 0:
            continue
        x, p = tokens[row].double(), tokens[before].double()
        if metric == "l2":
            out[row] = (x - p).norm()
        elif not (x.any() and p.any()):
            out[row] = 1.0
        else:
            x, p = x / x.abs().max(), p / p.abs().max()
            out[row] = max(1 - float(x @ p / (x.norm() * p.norm())), 0.0)
    return out


@settings(max_examples=150, deadline=None)
@given(exponents, exponents, st.sampled_from(METRICS), st.sampled_from(WIDE_DTYPES), st.integers(1, 70), st.integers(0))
def test_surprise_over_all_exponents(a: float, b: float, metric: str, dtype: torch.dtype, width: int, n: int) -> None:
    layout = LAYOUTS["ragged"]
    tokens = scaled_tokens(layout, width, dtype, min(a, b), max(a, b), n % 1000)
    arguments = tokens, layout.cu_seqlens, layout.tokens_per_frame, metric, 7.5
    expected = float64_surprise(tokens, layout, metric)
    actual = score_ext.surprise(*arguments)
    # one by one: a huge value must not lend its tolerance to a tiny one
    atol = 2e-6 if metric == "cosine" else 3e-45
    torch.testing.assert_close(actual, expected.float(), rtol=1e-5, atol=atol)
    torch.testing.assert_close(reference.surprise(*arguments), expected.float(), rtol=1e-5, atol=atol)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", WIDE_DTYPES)
@pytest.mark.parametrize("scale", [1e-44, 1e-40, 1e-30, 1e-20, 1e19, 1e30, 1e38])
def test_what_does_not_move_is_exactly_zero_at_any_size(scale: float, dtype: torch.dtype, metric: str) -> None:
    frame = (Layout(((1, 9),)).tokens(100).double().clamp(-3, 3) * scale).to(dtype)
    still = frame.repeat(5, 1)
    assert still.isfinite().all()
    values = score_ext.surprise(still, int32(0, len(still)), int32(9), metric, 0.0)
    # a token all of whose numbers were rounded to 0 is unlike all others by cosine
    expected = torch.where((still == 0).all(1) & (torch.arange(45) >= 9) & (metric == "cosine"), 1.0, 0.0)
    assert torch.equal(values, expected)


@pytest.mark.parametrize("size", [1e-38, 1e19, 3e38])
def test_l2_of_a_known_difference(size: float) -> None:
    tokens = torch.tensor([[0.0, 0.0], [0.6, 0.8], [0.6, 0.8], [0.0, 0.8]]) * size
    values = score_ext.surprise(tokens, int32(0, 4), int32(1), "l2", 0.0)
    torch.testing.assert_close(values, torch.tensor([0.0, 1.0, 0.0, 0.6]) * size, rtol=1e-6, atol=0)


def test_l2_that_is_no_float_is_infinite() -> None:
    tokens = torch.tensor([[3e38, 3e38], [-3e38, -3e38]])
    assert score_ext.surprise(tokens, int32(0, 2), int32(1), "l2", 0.0).tolist() == [0.0, math.inf]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("special", [math.nan, math.inf])
def test_nan_and_infinity_among_huge_and_tiny_tokens(metric: str, special: float) -> None:
    tokens = Layout(((4, 3),)).tokens(37)
    tokens *= torch.tensor([1e30, 1e-30, 1.0]).repeat(4)[:, None]
    tokens[4, 5] = special
    values = score_ext.surprise(tokens, int32(0, 12), int32(3), metric, 0.0)
    touched = values.isnan() if metric == "cosine" or math.isnan(special) else values.isinf()
    assert touched.nonzero().flatten().tolist() == [4, 7]


@settings(max_examples=60, deadline=None)
@given(exponents, st.sampled_from(METRICS), st.integers(2, 40), st.integers(0, 1000))
def test_gradient_over_all_exponents(exponent: float, metric: str, width: int, seed: int) -> None:
    """The gradient by cosine is 1 / |x| of one at size 1, the one by l2 is the same at every size."""
    layout = Layout(((4, 3), (2, 2)))
    packed = layout.cu_seqlens, layout.tokens_per_frame
    scale = 2.0 ** round(exponent * math.log2(10))
    scaled = (layout.tokens(width, seed=seed).clamp(-1, 1).double() * scale).float()
    unit = (scaled.double() / scale).float()  # the same numbers, rounded as subnormal ones are
    gradients = []
    for tokens in (unit, scaled):
        leaf = tokens.clone().requires_grad_()
        values = score_ext.surprise(leaf, *packed, metric, 0.0)
        gradients.append(torch.autograd.grad((values * layout.scores(seed=1)).sum(), leaf)[0].double())
    at_one, at_scale = gradients
    wanted = at_one / scale if metric == "cosine" else at_one
    limit = torch.finfo(torch.float32).max
    wanted = torch.where(wanted.abs() > limit, wanted.sign() * math.inf, wanted)
    largest = wanted[wanted.isfinite()].abs().max()
    torch.testing.assert_close(at_scale, wanted, rtol=1e-3, atol=max(1e-5 * float(largest), 1e-44))


@settings(max_examples=100, deadline=None)
@given(exponents, exponents, st.sampled_from(WIDE_DTYPES), st.integers(2, 70), st.sampled_from([1e-5, 1e-12, 1e-30]))
def test_state_over_all_exponents(a: float, b: float, dtype: torch.dtype, width: int, epsilon: float) -> None:
    layout = LAYOUTS["ragged"]
    tokens = scaled_tokens(layout, width, dtype, min(a, b), max(a, b), width)
    arguments = tokens, layout.cu_seqlens, layout.tokens_per_frame, None, 0, layout.length, torch.float32
    x = tokens.double()
    previous = previous_rows(layout)
    residual = torch.where((previous >= 0)[:, None], x - x[previous], 0.0)
    expected = torch.cat([torch.nn.functional.layer_norm(part, (width,), eps=epsilon) for part in (x, residual)], 1)
    actual = score_ext.policy_state(*arguments, epsilon=epsilon)
    torch.testing.assert_close(actual, expected.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(reference.policy_state(*arguments, epsilon=epsilon), expected.float())


@pytest.mark.parametrize("scale", [1e-30, 1e18, 1e25, 1e37])
def test_policy_logits_and_their_gradients_of_huge_tokens(scale: float) -> None:
    layout = LAYOUTS["ragged"]
    packed = layout.cu_seqlens, layout.tokens_per_frame
    layers = linear_layers([20, 12, 1])
    results = []
    for module in (score_ext, reference):
        tokens = (layout.tokens(10) * scale).requires_grad_()
        logits = module.policy_logits(tokens, *packed, layers)
        (gradient,) = torch.autograd.grad((logits * layout.scores(seed=1)).sum(), tokens)
        results.append((logits.detach(), gradient))
    (logits, gradient), (wanted, wanted_gradient) = results
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
    size = float(wanted_gradient.abs().max())
    assert size > 0.0
    torch.testing.assert_close(gradient / size, wanted_gradient / size, rtol=1e-3, atol=1e-4)


def test_flushing_subnormals_changes_no_choice() -> None:
    """A caller may have set torch.set_flush_denormal(True); CUDA kernels never flush, and pick the same tokens."""
    length, keep = 4096, int32(500)
    cu = int32(0, length)
    subnormal = torch.randn(length, generator=generator(0)).double() * 1e-40
    for scores in (subnormal.float(), torch.randn(length, generator=generator(1)) * 1e-37):

        def choices(scores: Tensor = scores) -> list[Tensor]:
            draws = score_ext.gumbel_topk(scores, cu, keep, 2, torch.tensor([3]), 500)
            mask, _, count = score_ext.sample_bernoulli(scores, cu, 2, torch.tensor([3]))
            selected = [score_ext.select(scores, cu, keep, 500, selection=rule) for rule in ("topk", "systematic")]
            return [*selected, *draws, mask, count]

        expected = choices()
        assert torch.set_flush_denormal(True), "this processor cannot flush"
        try:
            flushed = choices()
        finally:
            torch.set_flush_denormal(False)
        for mine, other in zip(flushed, expected, strict=True):
            assert torch.equal(mine, other)
