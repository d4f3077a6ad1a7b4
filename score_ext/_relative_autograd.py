"""The gradient of relative_logits: an op of its own, in plain torch on any device, as those of :mod:`_autograd`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from score_ext import _library  # noqa: F401  (loads torch.ops.score)
from score_ext._network_backward import BLOCK_ROWS, NetworkBackward, empty_gradients, zeros


@torch.library.custom_op("score::relative_logits_backward", mutates_args=())
def _relative_logits_backward(
    grad: Tensor,
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    columns: Tensor,
    num_frames: int,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor | None,
    b2: Tensor | None,
    w_out: Tensor,
    features: Tensor | None,
    use_token: bool,
    use_residual: bool,
    use_position: bool,
) -> list[Tensor]:
    """Gradients of w1, b1, w2, b2, w_out, b_out and features; empty tensors for what is not there."""
    videos = cu_seqlens, tokens_per_frame, columns
    measures, moments = torch.ops.score.relative_measures(tokens, *videos, num_frames)
    network = NetworkBackward(w1, b1, w2, b2, w_out)
    grad_features = zeros(features, tokens.device)
    for begin in range(0, tokens.shape[0], BLOCK_ROWS):
        end = min(begin + BLOCK_ROWS, tokens.shape[0])
        state = torch.ops.score.relative_rows(
            measures, moments, *videos, features, begin, end, w1.dtype, use_token, use_residual, use_position
        )
        above = network.add(grad[begin:end], state)
        if features is not None:
            of_features = network.w1[:, w1.shape[1] - features.shape[1] :]
            grad_features[begin:end] = (above @ of_features).float()
    return [*network.gradients, grad_features]


@_relative_logits_backward.register_fake
def _(
    grad: Tensor,
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    columns: Tensor,
    num_frames: int,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor | None,
    b2: Tensor | None,
    w_out: Tensor,
    features: Tensor | None,
    use_token: bool,
    use_residual: bool,
    use_position: bool,
) -> list[Tensor]:
    grad_features = tokens.new_empty(0 if features is None else features.shape, dtype=torch.float32)
    return [*empty_gradients(tokens, w1, b1, w2, b2, w_out), grad_features]


def _relative_logits_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    tokens, cu_seqlens, tokens_per_frame, columns, ctx.num_frames, *weights_and_features = inputs[:12]
    ctx.parts = inputs[12:]
    ctx.save_for_backward(tokens, cu_seqlens, tokens_per_frame, columns, *weights_and_features)


def _relative_logits_vjp(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tokens, cu_seqlens, tokens_per_frame, columns, w1, b1, w2, b2, w_out, _b_out, features = ctx.saved_tensors
    videos = cu_seqlens, tokens_per_frame, columns, ctx.num_frames
    *of_weights, grad_features = torch.ops.score.relative_logits_backward(
        grad, tokens, *videos, w1, b1, w2, b2, w_out, features, *ctx.parts
    )
    if w2 is None:
        of_weights[2:4] = None, None
    return (*[None] * 5, *of_weights, None if features is None else grad_features, *[None] * len(ctx.parts))


torch.library.register_autograd("score::relative_logits", _relative_logits_vjp, setup_context=_relative_logits_setup)
