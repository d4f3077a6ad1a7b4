"""Tokens in coordinates in which a video's own variety is the same in every direction: what is rare in it stands apart.

The cosine of two tokens as the tower leaves them is mostly about what all tokens share: a few directions, and in many
towers a few channels, are far larger than the rest. Whitened, a direction counts by how seldom the video uses it, so
that a small thing is far from its background, and noise in what is the same everywhere counts for little.

Ours; Mahalanobis (1936) is where the distance comes from, random projections (Johnson and Lindenstrauss 1984) why
:data:`WIDTH` columns do for any width of tokens. What it is worth is in docs/composite-results.md.
"""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

WIDTH = 127
"""Columns that wider tokens are projected to; with one more a row is 512 bytes long."""

RIDGE = 0.1
"""Of the mean variance over all directions: how much of it each direction is taken to have besides its own, so that
those that hold nearly nothing are not blown up."""

_OF_SIZE = 1e-8  # of the mean square of a token, so that rounding errors of tokens that are all alike stay small
_ROWS_AT_ONCE, _ROWS_ON_CPU = 8192, 256  # that are projected, as float32: so few stay in a processor's cache


@torch.no_grad()
def whitened(tokens: Tensor, cu_seqlens: Tensor) -> Tensor:
    """Tokens whitened, each video by its own.

    With m the mean of a video's tokens x and C their covariance, plus a ridge, [C^-1/2 (x - m) ; sqrt(W)], up to a
    rotation: W = min(D, ``WIDTH``) columns, and one that is the same for all tokens and about as long as the others
    together, so that tokens near the mean are near each other.

    Args:
        tokens: [L, D] floating point, B videos one after the other.
        cu_seqlens: int32 [B + 1], where they begin and end.

    Returns:
        float32 [L, W + 1]. A NaN or infinite token makes NaN of its video alone. Does not wait for the device. Not
        differentiable.
    """
    at_once = _ROWS_ON_CPU if tokens.device.type == "cpu" else _ROWS_AT_ONCE
    projected = torch.cat([_projected(rows) for rows in torch.split(tokens, at_once)])
    length, width = projected.shape
    result = projected.new_full((length, width + 1), width**0.5)
    videos = len(cu_seqlens) - 1
    if videos == 1 or tokens.device.type == "cpu":
        for begin, end in itertools.pairwise([0, length] if videos == 1 else cu_seqlens.tolist()):
            result[begin:end, :width] = _white(projected[begin:end])
        return result
    # where videos begin is known to the device alone: each is all rows, those of the others 0
    video_of_row = torch.arange(videos, device=tokens.device).repeat_interleave(cu_seqlens.diff(), output_size=length)
    for video in range(videos):
        inside = (video_of_row == video)[:, None]
        result[:, :width] = torch.where(inside, _white(projected, inside), result[:, :width])
    return result


def _white(rows: Tensor, inside: Tensor | None = None) -> Tensor:
    """float32 [n, W] of one video, whitened.

    Args:
        rows: float32 [n, W].
        inside: bool [n, 1], which rows are the video's; None: all.
    """
    count: Tensor | int = max(1, len(rows))
    if inside is not None:
        rows, count = rows.where(inside, 0.0), inside.sum().clamp(min=1)
    # by the largest: squares of what is finite are finite then
    rows = rows / rows.abs().amax().clamp(min=torch.finfo(torch.float32).tiny) if len(rows) else rows
    size = rows.square().mean(1).sum() / count
    rows = rows - rows.sum(0) / count
    if inside is not None:
        rows = rows.where(inside, 0.0)
    covariance = rows.T @ rows / count
    diagonal = covariance.diagonal()
    diagonal += RIDGE * diagonal.mean() + _OF_SIZE * size + torch.finfo(torch.float32).tiny
    factor = torch.linalg.cholesky_ex(covariance).L  # which does not look whether it could, as cholesky does
    inverse = torch.linalg.solve_triangular(factor, torch.eye(len(factor), device=rows.device), upper=False)
    white: Tensor = rows @ inverse.T
    return white


def _projected(tokens: Tensor) -> Tensor:
    """float32 [L, W]: the tokens, or where they are wider than ``WIDTH``, sums of their columns with random signs."""
    width = tokens.shape[1]
    return tokens.float() if width <= WIDTH else tokens.float() @ _signs(width, tokens.device)


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def _signs(width: int, device: torch.device) -> Tensor:
    """float32 [width, WIDTH], 1 / width and its negative; the same wherever and whenever it is made."""
    # splitmix64, in integers that wrap around: no generator's sequence has to stay as it is
    bits = torch.arange(width * WIDTH, device="cpu") * -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        bits = (bits ^ ((bits >> shift) & ((1 << (64 - shift)) - 1))) * factor
    signs = 1.0 - 2.0 * ((bits >> 40) & 1).float()
    return (signs / width).view(width, WIDTH).to(device)
