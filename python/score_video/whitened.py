"""Tokens in coordinates in which a video's own variety is the same in every direction: what is rare in it stands apart.

The cosine of two tokens as the tower leaves them is mostly about what all tokens share: a few directions, and in many
towers a few channels, are far larger than the rest. Whitened, a direction counts by how seldom the video uses it, so
that a small thing is far from its background, and noise in what is the same everywhere counts for little.

Ours. Mahalanobis (1936) is where the distance comes from. Wide tokens are added up into :data:`WIDTH` columns with
random signs, the count sketch of Charikar, Chen and Farach-Colton (2002) with columns dealt out in turn. What it is
worth is in docs/composite.md.
"""

from __future__ import annotations

import functools
import itertools

import torch
from torch import Tensor

WIDTH = 127
"""Columns that wider tokens are added up into; with one more a row is 512 bytes long."""

RIDGE = 0.1
"""Of the mean variance over all directions: how much of it each direction is taken to have besides its own, so that
those that hold nearly nothing are not blown up."""

_OF_SIZE = 1e-8  # of the mean square of a token, so that rounding errors of tokens that are all alike stay small
_ROWS_ON_CPU, _ROWS_ON_DEVICE = 256, 8192  # at once, as float32: so few stay in a processor's cache


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
    length, width = len(tokens), min(tokens.shape[1], WIDTH)
    result = torch.zeros(length, width + 1, device=tokens.device)
    for own in _slices(tokens):
        result[own, :width] = _folded(tokens[own])
    _whiten_videos_(result, cu_seqlens)
    result[:, width] = width**0.5
    return result


def _whiten_videos_(rows: Tensor, cu_seqlens: Tensor) -> None:
    """Each video where it stands; as :func:`_whiten_` for all rows."""
    length, device = len(rows), rows.device
    videos = len(cu_seqlens) - 1
    if videos == 1 or device.type == "cpu":
        for begin, end in itertools.pairwise([0, length] if videos == 1 else cu_seqlens.tolist()):
            _whiten_(rows[begin:end])
        return
    # where videos begin is known to the device alone: each is all rows, those of the others taken for 0
    video_of_row = torch.arange(videos, device=device).repeat_interleave(cu_seqlens.diff(), output_size=length)
    for video in range(videos):
        _whiten_(rows, (video_of_row == video)[:, None])


def _whiten_(rows: Tensor, inside: Tensor | None = None) -> None:
    """Whitens one video where it stands.

    Args:
        rows: float32 [n, W + 1], 0 in the last column, and then still: products of 128 columns are a quarter faster.
        inside: bool [n, 1], which rows are the video's; the others stay as they are. None: all.
    """
    if not len(rows):
        return
    video = rows if inside is None else rows.where(inside, 0.0)
    count: Tensor | int = len(rows) if inside is None else inside.sum().clamp(min=1)
    # by the largest: squares of what is finite are finite then
    lowest, highest = torch.aminmax(video)
    largest = torch.maximum(-lowest, highest).clamp(min=torch.finfo(torch.float32).tiny)
    slices = _slices(rows)
    mean = torch.stack([(video[own] / largest).sum(0) for own in slices]).sum(0) / count

    def centred(own: slice) -> Tensor:
        part = video[own] / largest - mean
        return part if inside is None else part.where(inside[own], 0.0)

    covariance = torch.zeros(len(mean), len(mean), device=rows.device)
    for own in slices:
        part = centred(own)
        covariance.addmm_(part.T, part)
    covariance /= count
    diagonal = covariance.diagonal()
    variance, width = diagonal.sum(), len(diagonal) - 1
    mean_square = variance + mean.square().sum()
    diagonal += (RIDGE * variance + _OF_SIZE * mean_square) / width + torch.finfo(torch.float32).tiny
    factor = torch.linalg.cholesky_ex(covariance).L  # which does not look whether it could, as cholesky does
    inverse = torch.linalg.solve_triangular(factor, torch.eye(len(factor), device=rows.device), upper=False)
    for own in slices:
        white = centred(own) @ inverse.T
        rows[own] = white if inside is None else white.where(inside[own], rows[own])


def _slices(rows: Tensor) -> list[slice]:
    """The rows in order, so many at once as are held as float32."""
    at_once = _ROWS_ON_CPU if rows.device.type == "cpu" else _ROWS_ON_DEVICE
    return [slice(begin, begin + at_once) for begin in range(0, len(rows), at_once)]


def _folded(tokens: Tensor) -> Tensor:
    """float32 [n, W]: the tokens, or where they are wider than ``WIDTH``, every W-th column added up, with signs."""
    width = tokens.shape[1]
    if width <= WIDTH:
        return tokens.float()
    signed = tokens.float() * _signs(width, tokens.device)
    whole = width - width % WIDTH
    folded: Tensor = signed[:, :whole].reshape(len(tokens), -1, WIDTH).sum(1)
    folded[:, : width - whole] += signed[:, whole:]
    return folded


@functools.lru_cache(maxsize=8)
@torch.inference_mode(False)
def _signs(width: int, device: torch.device) -> Tensor:
    """float32 [width], 1 / width and its negative; the same wherever and whenever it is made."""
    # splitmix64, in integers that wrap around: no generator's sequence has to stay as it is
    bits = torch.arange(width, device="cpu") * -7046029254386353131
    for shift, factor in ((30, -4658895280553007687), (27, -7723592293110705685)):
        bits = (bits ^ ((bits >> shift) & ((1 << (64 - shift)) - 1))) * factor
    signs = 1.0 - 2.0 * ((bits >> 40) & 1).float()
    return (signs / width).to(device)
