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

_TILE = 256  # rows
_TINY = torch.finfo(torch.float32).tiny
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
    if len(cu_seqlens) == 2:
        result = _white(rows)
    elif tokens.device.type == "cpu":
        result = torch.cat([rows[:0], *(_white(own) for own in torch.split(rows, cu_seqlens.diff().tolist()))])
    else:
        result = _white_by_tiles(rows, cu_seqlens)
    result[:, width] = width**0.5
    return result


def _white(rows: Tensor) -> Tensor:
    """float32 [n, W + 1] of one video, whitened: of rows that are 0 in the last column, and so is what comes of it."""
    if not len(rows):
        return rows
    # by the largest: squares of what is finite are finite then
    lowest, highest = torch.aminmax(rows)
    rows = rows / torch.maximum(-lowest, highest).clamp(min=_TINY)
    mean = rows.sum(0) / len(rows)
    rows -= mean
    white: Tensor = rows @ _whitening(rows.T @ rows / len(rows), mean)
    return white


def _white_by_tiles(rows: Tensor, cu_seqlens: Tensor) -> Tensor:
    """As :func:`_white` of each of B videos, whose lengths the device alone knows: by tiles of ``_TILE`` rows of one
    video, of which there are no more than the rows allow. So the work does not grow with B times the rows.

    Args:
        rows: float32 [L, W + 1], 0 in the last column.
        cu_seqlens: int32 [B + 1].
    """
    videos, width = len(cu_seqlens) - 1, rows.shape[1]
    if not len(rows) or not videos:
        return rows
    begins, lengths = cu_seqlens[:-1].long(), cu_seqlens.diff().long()
    tiles_of = (lengths + _TILE - 1) // _TILE  # [B]
    ends_of_tiles = tiles_of.cumsum(0)
    first_tile = ends_of_tiles - tiles_of
    number = torch.arange(len(rows) // _TILE + videos, device=rows.device)  # n tiles; those that are too many are empty
    video = torch.searchsorted(ends_of_tiles, number, right=True).clamp(max=videos - 1)  # [n]
    place = (number - first_tile[video])[:, None] * _TILE + torch.arange(_TILE, device=rows.device)  # [n, _TILE]
    inside = (place < lengths[video][:, None])[..., None]
    index = (begins[video][:, None] + place).clamp(max=len(rows) - 1)
    tiles = rows[index].where(inside, 0.0)  # [n, _TILE, W + 1]

    def of_videos(parts: Tensor) -> Tensor:
        """[n, ...] summed over the tiles of each video, [B, ...]; in a fixed order, as by index_add it would not be."""
        return parts.new_zeros(videos, *parts.shape[1:]).index_put_((video,), parts, accumulate=True)

    largest = rows.new_zeros(videos).scatter_reduce(0, video, tiles.abs().amax((1, 2)), "amax").clamp(min=_TINY)
    tiles /= largest[video][:, None, None]
    count = lengths.clamp(min=1)[:, None]
    mean = of_videos(tiles.sum(1)) / count  # [B, W + 1]
    tiles = (tiles - mean[video][:, None]).where(inside, 0.0)
    whitening = _whitening(of_videos(tiles.mT @ tiles) / count[..., None], mean)
    white = (tiles @ whitening[video]).view(-1, width)
    row = torch.arange(len(rows), device=rows.device)
    own = torch.searchsorted(cu_seqlens[1:].long(), row, right=True)
    return white[first_tile[own] * _TILE + row - begins[own]]


def _whitening(covariance: Tensor, mean: Tensor) -> Tensor:
    """float32 [..., W + 1, W + 1], what centred rows are multiplied by; of their covariance, which is changed in place,
    and what was their mean."""
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    variance, width = diagonal.sum(-1, keepdim=True), diagonal.shape[-1] - 1
    mean_square = variance + mean.square().sum(-1, keepdim=True)
    diagonal += (RIDGE * variance + _OF_SIZE * mean_square) / width + _TINY
    factor = torch.linalg.cholesky_ex(covariance).L  # which does not look whether it could, as cholesky does
    unit = torch.eye(width + 1, dtype=factor.dtype, device=factor.device)
    inverse: Tensor = torch.linalg.solve_triangular(factor, unit, upper=False)
    return inverse.mT
