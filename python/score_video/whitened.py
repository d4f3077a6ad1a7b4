"""Tokens in coordinates in which a video's own variety is the same in every direction: what is rare in it stands apart.

The cosine of two tokens as the tower leaves them is mostly about what all tokens share: a few directions, and in many
towers a few channels, are far larger than the rest. Whitened, a direction counts by how seldom the video uses it, so
that a small thing is far from its background, and noise in what is the same everywhere counts for little.

Ours; Mahalanobis (1936) is where the distance comes from. Wide tokens are added up into fewer columns first
(:func:`score_ext.count_sketch`). What it is worth is in docs/composite.md.
"""

from __future__ import annotations

import torch
from torch import Tensor

import score_ext

WIDTH = 127
"""Columns that wider tokens are added up into; with one more a row is 512 bytes long."""

RIDGE = 0.1
"""Of the mean variance over all directions: how much of it each direction is taken to have besides its own, so that
those that hold nearly nothing are not blown up."""

_OF_SIZE = 1e-8  # of the mean square of a token, so that rounding errors of tokens that are all alike stay small


@torch.no_grad()
def whitened(tokens: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Tokens whitened, each video by its own.

    With m the mean of a video's tokens x and C their covariance, plus a ridge, [C^-1/2 (x - m) ; sqrt(W)], up to a
    rotation: W = min(D, ``WIDTH``) columns, and one that is the same for all tokens and about as long as the others
    together, so that tokens near the mean are near each other.

    Args:
        tokens: [L, D] float32, float16 or bfloat16, B videos one after the other.
        cu_seqlens: int32 [B + 1], where they begin and end.

    Returns:
        float32 [L, W + 1]. A NaN or infinite token, or one whose columns add up to what no float32 holds, makes NaN of
        its video alone. Does not wait for the device. Not differentiable.
    """
    with torch.autocast(tokens.device.type, enabled=False):  # which would multiply in float16 or bfloat16
        return _whitened(tokens, cu_seqlens)


def _whitened(tokens: Tensor, cu_seqlens: Tensor) -> Tensor:
    """As :func:`whitened`."""
    width = min(tokens.shape[1], WIDTH)
    narrow = score_ext.count_sketch(tokens, width) if width < tokens.shape[1] else tokens.float()
    # a column of 0 for now: products of 128 columns are a quarter faster than those of 127
    rows = torch.nn.functional.pad(narrow, (0, 1))
    videos = len(cu_seqlens) - 1
    if videos == 1:
        result = _white(rows)
    elif tokens.device.type == "cpu":
        result = torch.cat([rows[:0], *(_white(own) for own in torch.split(rows, cu_seqlens.diff().tolist()))])
    else:
        result = rows
        # where videos begin is known to the device alone: each is all rows, those of the others taken for 0
        video_of_row = torch.arange(videos, device=rows.device).repeat_interleave(
            cu_seqlens.diff(), output_size=len(rows)
        )
        for video in range(videos):
            inside = (video_of_row == video)[:, None]
            result = torch.where(inside, _white(rows, inside), result)
    result[:, width] = width**0.5
    return result


def _white(rows: Tensor, inside: Tensor | None = None) -> Tensor:
    """float32 [n, W + 1] of one video, whitened.

    Args:
        rows: float32 [n, W + 1], 0 in the last column, and so is what comes of it.
        inside: bool [n, 1], which rows are the video's; None: all.
    """
    if not len(rows):
        return rows
    count: Tensor | int = len(rows) if inside is None else inside.sum().clamp(min=1)
    rows = rows if inside is None else rows.where(inside, 0.0)
    # by the largest: squares of what is finite are finite then
    lowest, highest = torch.aminmax(rows)
    rows = rows / torch.maximum(-lowest, highest).clamp(min=torch.finfo(torch.float32).tiny)
    mean = rows.sum(0) / count
    rows -= mean if inside is None else mean * inside
    covariance = rows.T @ rows / count
    diagonal = covariance.diagonal()
    variance, width = diagonal.sum(), len(diagonal) - 1
    mean_square = variance + mean.square().sum()
    diagonal += (RIDGE * variance + _OF_SIZE * mean_square) / width + torch.finfo(torch.float32).tiny
    factor = torch.linalg.cholesky_ex(covariance).L  # which does not look whether it could, as cholesky does
    inverse = torch.linalg.solve_triangular(
        factor, torch.eye(len(factor), dtype=rows.dtype, device=rows.device), upper=False
    )
    white: Tensor = rows @ inverse.T
    return white
