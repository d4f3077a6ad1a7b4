"""plackett_luce_log_prob: the log-probability of an ordered draw, exact for any logits, and its gradient."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from batches import LAYOUTS, Layout, generator, int32, int64, layouts, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import score_ext
from score_ext import reference

SCALES = (0.0, 1e-6, 1.0, 10.0, 60.0, 100.0, 1e3, 1e4, 1e6, 1e30)
SHIFTS = (0.0, -50.0, 1e4, -1e6)  # a constant changes no probability
# Each of k steps is a float32 logarithm of at most 60 or so: half a unit in the last place of that.
STEP_ERROR = 2e-6


def double_rounding(logits: Tensor) -> float:
    """What a double loses beside logits so large: nothing to speak of below 1e9."""
    return 4 * 2.0**-52 * float(logits.abs().max()) if len(logits) else 0.0


def exact(logits: Tensor, cu_seqlens: Tensor, keep: Tensor, order: Tensor) -> Tensor:
    """float64 [G, B]: the definition, a logsumexp over what is left for every step."""
    offsets, budgets = cu_seqlens.tolist(), keep.tolist()
    out = logits.double().sum() * torch.zeros(order.shape[0], len(budgets), dtype=torch.float64)  # 0, with a gradient
    for sample, rows in enumerate(order.tolist()):
        at = 0
        for video, count in enumerate(budgets):
            left = logits[offsets[video] : offsets[video + 1]].double()
            for row in rows[at : at + count]:
                local = row - offsets[video]
                out[sample, video] += left[local] - left.logsumexp(0)
                left = left.clone()
                left[local] = -math.inf
            at += count
    return out


def drawn(layout: Layout, logits: Tensor, seed: int, num_samples: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """cu_seqlens, keep and an order to go with the logits."""
    keep, total_keep = layout.keep(seed)
    _, order = score_ext.gumbel_topk(logits, layout.cu_seqlens, keep, num_samples, int64(seed), total_keep)
    return layout.cu_seqlens, keep, order


@settings(max_examples=100, deadline=None)
@given(
    layouts(max_videos=3, max_frames=5, max_tokens=8),
    st.sampled_from(SCALES),
    st.sampled_from(SHIFTS),
    seeds,
    st.booleans(),
)
def test_equals_definition_and_reference(layout: Layout, scale: float, shift: float, seed: int, likely: bool) -> None:
    logits = layout.scores(seed, scale) + shift
    # Orders that the logits make likely, and ones drawn for other logits.
    rest = drawn(layout, logits if likely else -logits, seed)
    log_prob = score_ext.plackett_luce_log_prob(logits, *rest)
    expected = exact(logits, *rest)
    tolerance = (1 + rest[1].double()) * (STEP_ERROR + double_rounding(logits))
    assert ((log_prob.double() - expected).abs() <= tolerance + 1e-6 * expected.abs()).all()
    torch.testing.assert_close(
        log_prob, reference.plackett_luce_log_prob(logits, *rest), rtol=1e-5, atol=float(tolerance.max())
    )


@pytest.mark.parametrize("scale", [1.0, 20.0])
def test_long_videos(scale: float) -> None:
    layout = Layout(((100, 200),))
    logits = layout.scores(0, scale)
    keep = 5000
    _, order = score_ext.gumbel_topk(logits, layout.cu_seqlens, int32(keep), 2, int64(0), keep)
    arguments = logits, layout.cu_seqlens, int32(keep), order
    torch.testing.assert_close(
        score_ext.plackett_luce_log_prob(*arguments),
        reference.plackett_luce_log_prob(*arguments),
        rtol=1e-6,
        atol=keep * STEP_ERROR,
    )


def test_probabilities_of_all_orders_sum_to_one() -> None:
    logits = torch.tensor([1.5, -0.2, 0.0, 3.0, -4.0])
    for keep in range(1, 6):
        order = torch.tensor(list(itertools.permutations(range(5), keep)))
        log_prob = score_ext.plackett_luce_log_prob(logits, int32(0, 5), int32(keep), order)
        assert float(log_prob.double().exp().sum()) == pytest.approx(1, abs=1e-6)


def test_nothing_kept_is_certain() -> None:
    logits = torch.tensor([1.0, math.nan, 2.0])
    log_prob = score_ext.plackett_luce_log_prob(
        logits, int32(0, 2, 2, 3), int32(0, 0, 0), torch.zeros(2, 0, dtype=torch.int64)
    )
    assert torch.equal(log_prob, torch.zeros(2, 3))


def test_special_values() -> None:
    order = torch.tensor([[0, 1]])
    packed = int32(0, 3), int32(2)
    for native in (score_ext.plackett_luce_log_prob, reference.plackett_luce_log_prob):
        for value in (math.nan, math.inf):
            for place in range(3):  # drawn or not
                logits = torch.tensor([0.5, 1.0, 2.0])
                logits[place] = value
                assert native(logits, *packed, order).isnan().all()
        # A token of probability 0 was drawn: impossible, even where nothing else was left.
        assert native(torch.tensor([0.0, -math.inf, 0.0]), *packed, order) == -math.inf
        assert native(torch.tensor([0.0, -math.inf, -math.inf]), *packed, order) == -math.inf
        # Tokens of probability 0 that were not drawn do not count.
        assert float(native(torch.tensor([0.0, 0.0, -math.inf]), *packed, order)) == pytest.approx(-math.log(2))


def gradient(function: Callable[..., Tensor], logits: Tensor, rest: tuple[Tensor, ...], weight: Tensor) -> Tensor:
    leaf = logits.clone().requires_grad_()
    return torch.autograd.grad((function(leaf, *rest) * weight).sum(), leaf)[0]


@settings(max_examples=100, deadline=None)
@given(
    layouts(max_videos=3, max_frames=5, max_tokens=8),
    st.sampled_from(SCALES),
    st.sampled_from(SHIFTS),
    seeds,
    st.booleans(),
)
def test_gradient_equals_reference(layout: Layout, scale: float, shift: float, seed: int, likely: bool) -> None:
    logits = layout.scores(seed, scale) + shift
    rest = drawn(layout, logits if likely else -logits, seed)
    weight = torch.randn(3, len(layout.videos), generator=generator(seed))
    actual = gradient(score_ext.plackett_luce_log_prob, logits, rest, weight)
    expected = gradient(exact, logits, rest, weight.double())
    # Sums over k steps and the samples, each step to a float's rounding; where doubles are coarse, order decides.
    steps = (1 + float(rest[1].max())) * float(weight.abs().sum())
    tolerance = steps * (1e-6 + min(1.0, double_rounding(logits)))
    assert ((actual - expected).abs() <= tolerance).all()
    native = torch.ops.score.plackett_luce_log_prob_backward(weight, logits, *rest)
    assert torch.equal(actual, native)


def test_gradient_equals_finite_differences() -> None:
    layout = Layout(((2, 3), (0, 1), (1, 5)))
    logits = layout.scores(3)
    rest = drawn(layout, logits, 4)
    weight = torch.randn(3, 3, generator=generator(0))
    actual = gradient(score_ext.plackett_luce_log_prob, logits, rest, weight)
    numeric = torch.zeros(layout.length, dtype=torch.float64)
    for i in range(layout.length):
        change = torch.zeros(layout.length, dtype=torch.float64)
        change[i] = 1e-6
        above, below = (exact(logits.double() + sign * change, *rest) for sign in (1, -1))
        numeric[i] = ((above - below) * weight).sum() / 2e-6
    torch.testing.assert_close(actual.double(), numeric, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0])
def test_expected_score_is_zero(scale: float) -> None:
    """sum over all draws of P(draw) * grad log P(draw) = grad of sum P = 0: what makes a policy gradient unbiased."""
    logits = torch.randn(5, generator=generator(1)) * scale
    for keep in range(1, 6):
        order = torch.tensor(list(itertools.permutations(range(5), keep)))
        arguments = logits, int32(0, 5), int32(keep), order
        probability = exact(*arguments).exp().float()
        score = torch.ops.score.plackett_luce_log_prob_backward(probability, *arguments)
        assert score.abs().max() < 2e-6


def test_gradient_of_sample_is_that_of_the_order_it_drew() -> None:
    layout = LAYOUTS["ragged"]
    logits = layout.scores(0)
    keep, total_keep = layout.keep(0)
    weight = torch.randn(4, len(layout.videos), generator=generator(0))
    leaf = logits.clone().requires_grad_()
    _, log_prob = score_ext.gumbel_topk_with_log_prob(leaf, layout.cu_seqlens, keep, 4, int64(7), total_keep)
    (log_prob * weight).sum().backward()
    _, order = score_ext.gumbel_topk(logits, layout.cu_seqlens, keep, 4, int64(7), total_keep)
    rest = layout.cu_seqlens, keep, order
    assert torch.equal(log_prob.detach(), score_ext.plackett_luce_log_prob(logits, *rest))
    assert torch.equal(leaf.grad, gradient(score_ext.plackett_luce_log_prob, logits, rest, weight))


def test_gradient_of_nan_stays_in_its_video() -> None:
    logits = torch.tensor([0.0, math.nan, 1.0, 2.0])
    order = torch.tensor([[0, 3]])
    weight = torch.ones(1, 2)
    result = torch.ops.score.plackett_luce_log_prob_backward(weight, logits, int32(0, 2, 4), int32(1, 1), order)
    assert result[:2].isnan().all()
    assert result[2:].isfinite().all()
