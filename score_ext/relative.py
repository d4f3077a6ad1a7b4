"""The policy's state "relative" as typed functions: see :mod:`score_ext.ops` for notation and errors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from score_ext import _library  # noqa: F401  (loads torch.ops.score)
from score_ext._arguments import (
    TOKEN_DTYPES,
    check_kind,
    check_layers,
    check_tensor,
    check_video_tensors,
    op_function,
)

_ops = torch.ops.score


def _frames_of(cu_seqlens: Tensor, tokens_per_frame: Tensor, num_frames: int | None) -> int:
    """num_frames, or the sum of the videos' frames, from tensors whose types have been checked."""
    if num_frames is not None:
        check_kind("num_frames", num_frames, int, "an integer or None")
        return num_frames
    if cu_seqlens.dim() != 1 or tokens_per_frame.shape != cu_seqlens.diff().shape:
        return 0  # the op says what is wrong
    return int((cu_seqlens.diff() // tokens_per_frame.clamp_min(1)).sum())


@op_function()
def relative_state(
    tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, columns: Tensor, num_frames: int | None = None
) -> Tensor:
    """What each token is like beside others of its video: features that mean the same for every vision tower.

    Only cosines, norms beside those of the same video, and standard scores, no coordinate of the token itself. Nothing
    changes when all tokens of a video are scaled or rotated. SCORE has no such state; this is ours.

    A token's direction is u = x / |x|, 0 for a zero token. Plain cosines are between directions; centred ones between
    c = u - m, m the mean direction of the video: <a, b> / sqrt((|a|^2 + e)(|b|^2 + e)), e = 1e-6, the square of what
    rounding to bfloat16 does to a direction. Where a tower adds a large common component to every token, plain cosines
    are all close to 1 and say little; centred ones still tell. A score of v is asinh((v - mean) / sqrt(var + 1e-6))
    over those tokens of the video, or of the frame, that have such a v. What is to something that is not there (no
    frame before, no neighbour) is 0, its scores too.

    Columns 0 to 24, the temporal part: 7 cosines; their scores within the video; within the frame; whether there is a
    frame 1, 2, 4 back and 1 ahead. The cosines: centred, to the same place 1, 2 and 4 frames back; to the best match
    among the 3 x 3 places around it one frame back; both of the frame ahead; plain, to the same place one frame back.

    Columns 25 to 42, the appearance part: 5 cosines; their scores within the video; within the frame; whether there is
    a neighbour; the scores of log |x|, 0 for a zero token. The cosines: mean and largest of the centred ones to the 4
    neighbours; centred and plain to the frame's mean direction; plain to the video's.

    Goes through the tokens twice. Not differentiable.

    Args:
        tokens: [L, D] float32, float16 or bfloat16; arithmetic is float32, every finite token in range.
        cu_seqlens: int32 [B + 1].
        tokens_per_frame: int32 [B].
        columns: int32 [B], tokens in a row of a frame; divides ``tokens_per_frame``.
        num_frames: the frames of all videos together; None: they are counted, which waits for the device where the
            sizes lie on a GPU. Within torch.compile, torch.export and a CUDA graph it must be given.

    Returns:
        float32 [L, 43]; finite where the video's tokens are. A video's rows depend on that video alone.
    """
    check_tensor("tokens", tokens, *TOKEN_DTYPES)
    check_video_tensors(cu_seqlens=cu_seqlens, tokens_per_frame=tokens_per_frame, columns=columns)
    frames = _frames_of(cu_seqlens, tokens_per_frame, num_frames)
    return _ops.relative_state(tokens, cu_seqlens, tokens_per_frame, columns, frames)


@op_function()
def relative_logits(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    columns: Tensor,
    num_frames: int | None,
    layers: Sequence[tuple[Tensor, Tensor]],
    features: Tensor | None = None,
    use_token: bool = True,
    use_residual: bool = True,
    use_position: bool = True,
) -> Tensor:
    """The policy network's logits over :func:`relative_state`, one for each token.

    The state is [temporal part ; appearance part ; position ; features], the network that of
    :func:`score_ext.policy_logits`. Rows of the state are formed a block at a time and again in the backward pass, so
    that memory stays far below that of the tokens.

    The position is t, y and x of the token, each from 0 in the first frame, row or column to 1 in the last (0 where
    there is one), then sin(2^j pi u) of u = t, y, x with j = 0, 1, 2 each, then the cosines: 21 columns.

    Args:
        tokens: [L, D] float32, float16 or bfloat16. Not differentiable here.
        cu_seqlens, tokens_per_frame, columns, num_frames: as in :func:`relative_state`.
        layers: as in :func:`score_ext.policy_logits`. Differentiable.
        features: float32 [L, P], appended to the state, or None. Differentiable.
        use_token, use_residual, use_position: whether the appearance, temporal and position part are there.

    Returns:
        float32 [L].
    """
    check_tensor("tokens", tokens, *TOKEN_DTYPES)
    check_video_tensors(cu_seqlens=cu_seqlens, tokens_per_frame=tokens_per_frame, columns=columns)
    if features is not None:
        check_tensor("features", features, torch.float32)
    check_layers(layers)
    check_kind("use_token", use_token, bool, "a bool")
    check_kind("use_residual", use_residual, bool, "a bool")
    check_kind("use_position", use_position, bool, "a bool")
    (w1, b1), *middle, (w_out, b_out) = layers
    w2, b2 = middle[0] if middle else (None, None)
    frames = _frames_of(cu_seqlens, tokens_per_frame, num_frames)
    videos = cu_seqlens, tokens_per_frame, columns, frames
    weights = w1, b1, w2, b2, w_out, b_out
    return _ops.relative_logits(tokens, *videos, *weights, features, use_token, use_residual, use_position)
