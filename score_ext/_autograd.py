"""Gradients of the ops that have one.

The backward passes of surprise and policy_logits are ops of their own, in plain torch on any device: opaque to
torch.compile, so that their loops over blocks of tokens stay out of its graphs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from score_ext import _library  # noqa: F401  (loads torch.ops.score)
from score_ext._network_backward import BLOCK_ROWS, NetworkBackward, empty_gradients, zeros


def _previous_row(cu_seqlens: Tensor, tokens_per_frame: Tensor, begin: int, end: int) -> tuple[Tensor, Tensor]:
    """For rows begin .. end: the row of the frame before (itself in a first frame), and whether there is one."""
    rows = torch.arange(begin, end, device=cu_seqlens.device)
    video = torch.searchsorted(cu_seqlens, rows, right=True, out_int32=False) - 1
    step = tokens_per_frame.long()[video]
    has_previous = rows - cu_seqlens.long()[video] >= step
    return torch.where(has_previous, rows - step, rows), has_previous


def _layer_norm_backward(grad: Tensor, normalized: Tensor, scale: Tensor) -> Tensor:
    """Gradient through y = (x - mean) * scale, scale = rsqrt(var + eps) [rows, 1]; all else [rows, D] float32."""
    along = (grad * normalized).mean(1, keepdim=True)
    return scale * (grad - grad.mean(1, keepdim=True) - normalized * along)


def _largest(x: Tensor) -> Tensor:
    """Largest magnitude of each row of x [rows, D] -> [rows, 1]."""
    return x.abs().amax(1, keepdim=True)


def _direction(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x / |x| of each row, and |x| as a product of two, [rows, 1] each: it need not be a float, nor the squares. NaN
    for a zero row."""
    largest = _largest(x)
    unit = x / largest
    norm = unit.norm(dim=1, keepdim=True)
    return unit / norm, norm, largest


def _difference(x: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
    """(x - p) * share and share [rows, 1]: 1, or a half where the difference need not be a float."""
    share = torch.where(torch.maximum(_largest(x), _largest(p)) > 1e38, 0.5, 1.0).to(x.dtype)
    return x * share - p * share, share


def _scale(x: Tensor, share: Tensor | float, epsilon: float) -> Tensor:
    """1 / sqrt(var + epsilon) of rows x / share, whose squares need not be floats."""
    size = _largest(x).clamp_min(1)
    root = (x / size).var(1, correction=0, keepdim=True) + epsilon * (share / size).square()
    return torch.rsqrt(root) / size * share


@torch.library.custom_op("score::surprise_backward", mutates_args=())
def _surprise_backward(
    grad: Tensor, tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, metric: str
) -> Tensor:
    grad_tokens = torch.zeros(tokens.shape, dtype=torch.float32, device=tokens.device)
    for begin in range(0, tokens.shape[0], BLOCK_ROWS):
        end = min(begin + BLOCK_ROWS, tokens.shape[0])
        previous, has_previous = _previous_row(cu_seqlens, tokens_per_frame, begin, end)
        x, p = tokens[begin:end].float(), tokens[previous].float()  # [rows, D]
        weight = torch.where(has_previous, grad[begin:end], 0.0)[:, None]
        if metric == "cosine":
            (x_unit, x_norm, x_largest), (p_unit, p_norm, p_largest) = _direction(x), _direction(p)
            zero = (x_largest == 0) | (p_largest == 0)  # there surprise is the constant 1
            cosine = (x_unit * p_unit).sum(1, keepdim=True)
            to_x = torch.where(zero, 0.0, (cosine * x_unit - p_unit) / x_norm / x_largest)
            to_p = torch.where(zero, 0.0, (cosine * p_unit - x_unit) / p_norm / p_largest)
        else:
            direction, _, largest = _direction(_difference(x, p)[0])
            to_x = torch.where(largest == 0, 0.0, direction)  # the subgradient that torch's norm takes
            to_p = -to_x
        grad_tokens[begin:end] += torch.where(weight == 0, 0.0, weight * to_x)
        grad_tokens.index_add_(0, previous, torch.where(weight == 0, 0.0, weight * to_p))
    return grad_tokens.to(tokens.dtype)


@_surprise_backward.register_fake
def _(grad: Tensor, tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, metric: str) -> Tensor:
    return tokens.new_empty(tokens.shape)


def _surprise_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tokens, cu_seqlens, tokens_per_frame, metric, _first = inputs
    ctx.save_for_backward(tokens, cu_seqlens, tokens_per_frame)
    ctx.metric = metric


def _surprise_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tokens, cu_seqlens, tokens_per_frame = ctx.saved_tensors
    grad_tokens = torch.ops.score.surprise_backward(grad, tokens, cu_seqlens, tokens_per_frame, ctx.metric)
    return grad_tokens, None, None, None, None


torch.library.register_autograd("score::surprise", _surprise_vjp, setup_context=_surprise_setup)


@torch.library.custom_op("score::policy_logits_backward", mutates_args=())
def _policy_logits_backward(
    grad: Tensor,
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor | None,
    b2: Tensor | None,
    w_out: Tensor,
    features: Tensor | None,
    use_token: bool,
    use_residual: bool,
    epsilon: float,
    tokens_need_grad: bool,
) -> list[Tensor]:
    """Gradients of w1, b1, w2, b2, w_out, b_out, features, tokens; empty tensors for what is not there or not asked."""
    width = tokens.shape[1]
    network = NetworkBackward(w1, b1, w2, b2, w_out)
    grad_features = zeros(features, tokens.device)
    grad_tokens = zeros(tokens if tokens_need_grad else None, tokens.device)

    for begin in range(0, tokens.shape[0], BLOCK_ROWS):
        end = min(begin + BLOCK_ROWS, tokens.shape[0])
        state = torch.ops.score.policy_state(
            tokens, cu_seqlens, tokens_per_frame, features, begin, end, w1.dtype, use_token, use_residual, epsilon
        )
        above = network.add(grad[begin:end], state)
        if features is None and not tokens_need_grad:
            continue
        to_state = (above @ network.w1).float()  # [rows, S]
        if features is not None:
            grad_features[begin:end] = to_state[:, to_state.shape[1] - features.shape[1] :]
        if not tokens_need_grad:
            continue
        x = tokens[begin:end].float()
        state = state.float()
        column = 0
        if use_token:
            scale = _scale(x, 1.0, epsilon)
            grad_tokens[begin:end] += _layer_norm_backward(to_state[:, :width], state[:, :width], scale)
            column = width
        if use_residual:
            previous, has_previous = _previous_row(cu_seqlens, tokens_per_frame, begin, end)
            part = slice(column, column + width)
            scale = _scale(*_difference(x, tokens[previous].float()), epsilon)
            to_residual = _layer_norm_backward(to_state[:, part], state[:, part], scale) * has_previous[:, None]
            grad_tokens[begin:end] += to_residual
            grad_tokens.index_add_(0, previous, -to_residual)

    return [*network.gradients, grad_features, grad_tokens.to(tokens.dtype)]


@_policy_logits_backward.register_fake
def _(
    grad: Tensor,
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor | None,
    b2: Tensor | None,
    w_out: Tensor,
    features: Tensor | None,
    use_token: bool,
    use_residual: bool,
    epsilon: float,
    tokens_need_grad: bool,
) -> list[Tensor]:
    def like(tensor: Tensor | None, dtype: torch.dtype) -> Tensor:
        return tokens.new_empty(0 if tensor is None else tensor.shape, dtype=dtype)

    grad_tokens = like(tokens if tokens_need_grad else None, tokens.dtype)
    return [*empty_gradients(tokens, w1, b1, w2, b2, w_out), like(features, torch.float32), grad_tokens]


def _policy_logits_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.use_token, ctx.use_residual, ctx.epsilon = inputs
    ctx.save_for_backward(*tensors)


def _policy_logits_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tokens, cu_seqlens, tokens_per_frame, w1, b1, w2, b2, w_out, _b_out, features = ctx.saved_tensors
    gradients = torch.ops.score.policy_logits_backward(
        grad,
        tokens,
        cu_seqlens,
        tokens_per_frame,
        w1,
        b1,
        w2,
        b2,
        w_out,
        features,
        ctx.use_token,
        ctx.use_residual,
        ctx.epsilon,
        ctx.needs_input_grad[0],
    )
    grad_w1, grad_b1, grad_w2, grad_b2, grad_w_out, grad_b_out, grad_features, grad_tokens = gradients
    return (
        grad_tokens if ctx.needs_input_grad[0] else None,
        None,
        None,
        grad_w1,
        grad_b1,
        None if w2 is None else grad_w2,
        None if w2 is None else grad_b2,
        grad_w_out,
        grad_b_out,
        None if features is None else grad_features,
        None,
        None,
        None,
    )


torch.library.register_autograd("score::policy_logits", _policy_logits_vjp, setup_context=_policy_logits_setup)


def _plackett_luce_log_prob_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _plackett_luce_log_prob_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    logits, cu_seqlens, keep, order = ctx.saved_tensors
    grad_logits = torch.ops.score.plackett_luce_log_prob_backward(grad, logits, cu_seqlens, keep, order)
    return grad_logits, None, None, None


torch.library.register_autograd(
    "score::plackett_luce_log_prob", _plackett_luce_log_prob_vjp, setup_context=_plackett_luce_log_prob_setup
)


def _gumbel_topk_with_log_prob_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    logits, cu_seqlens, keep, ctx.num_samples, seed, ctx.total_keep = inputs
    ctx.mark_non_differentiable(output[0])
    ctx.save_for_backward(logits, cu_seqlens, keep, seed)


def _gumbel_topk_with_log_prob_vjp(ctx: Any, _grad_index: Tensor | None, grad: Tensor) -> tuple[Tensor | None, ...]:
    logits, cu_seqlens, keep, seed = ctx.saved_tensors
    # The order of drawing is not kept: the same seed draws it again.
    _index, order = torch.ops.score.gumbel_topk(logits, cu_seqlens, keep, ctx.num_samples, seed, ctx.total_keep)
    grad_logits = torch.ops.score.plackett_luce_log_prob_backward(grad, logits, cu_seqlens, keep, order)
    return grad_logits, None, None, None, None, None


torch.library.register_autograd(
    "score::gumbel_topk_with_log_prob", _gumbel_topk_with_log_prob_vjp, setup_context=_gumbel_topk_with_log_prob_setup
)


def _sample_bernoulli_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, cu_seqlens, _num_samples, _seed = inputs
    mask, _log_prob, count = output
    ctx.mark_non_differentiable(mask, count)
    ctx.save_for_backward(logits, cu_seqlens, mask)


def _sample_bernoulli_vjp(
    ctx: Any, _grad_mask: Tensor | None, grad: Tensor, _grad_count: Tensor | None
) -> tuple[Tensor | None, ...]:
    logits, cu_seqlens, mask = ctx.saved_tensors
    rows = torch.arange(logits.shape[0], device=logits.device)
    video = torch.searchsorted(cu_seqlens, rows, right=True) - 1
    by_token = grad[:, video]  # [G, L]
    return ((mask.to(grad.dtype) - torch.sigmoid(logits)) * by_token).sum(0), None, None, None


torch.library.register_autograd("score::sample_bernoulli", _sample_bernoulli_vjp, setup_context=_sample_bernoulli_setup)


def _scatter(grad: Tensor, index: Tensor, num_rows: int) -> Tensor:
    """The gradient of gather: an add, so that a row gathered twice gets both."""
    return grad.new_zeros((num_rows, *grad.shape[1:])).index_add_(0, index, grad)


def _gather_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tokens, index = inputs
    ctx.num_rows = tokens.shape[0]
    ctx.save_for_backward(index)


def _gather_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    (index,) = ctx.saved_tensors
    return _scatter(grad, index, ctx.num_rows), None


torch.library.register_autograd("score::gather", _gather_vjp, setup_context=_gather_setup)


def _compress_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    _kept, index, cu_kept = output
    ctx.mark_non_differentiable(index, cu_kept)
    ctx.num_rows = inputs[0].shape[0]
    ctx.save_for_backward(index)


def _compress_vjp(
    ctx: Any, grad: Tensor, _grad_index: Tensor | None, _grad_cu_kept: Tensor | None
) -> tuple[Tensor | None, ...]:
    (index,) = ctx.saved_tensors
    return _scatter(grad, index, ctx.num_rows), None, None, None, None, None, None, None


torch.library.register_autograd("score::compress", _compress_vjp, setup_context=_compress_setup)
