"""Small pictures of a video's tokens, from the pixels that a processor made: what a choice before the tower goes by.

A token of four patches is 48 numbers: 2 x 2 cells of each patch, in three colours, averaged over the frames that one
patch spans. Each colour of a video has mean 0 and standard deviation 1, so that it does not matter how a processor
normalised it, and bytes give what its floats give.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import score_ext
from score_video.packed import PackedVideos

CELLS = 2
"""Rows and columns of cells in a patch."""

FRAME_CELLS = 8
"""Rows and columns of cells in a whole frame."""

CHANNELS = 3

PATCH_WIDTH = CHANNELS * CELLS**2
"""Numbers of a patch."""


def of_tokens(pixels: Tensor, side: int, patches: Tensor, grids: Sequence[tuple[int, int, int]]) -> PackedVideos:
    """Thumbnails of tokens.

    Args:
        pixels: a processor's patches, [patches, ...], each of colours, frames, rows and columns in this order.
        side: of a patch, in pixels.
        patches: int64 [L, P], the patches of each token.
        grids: frames, rows and columns of each video's tokens.

    Returns:
        videos of tokens float32 [L, P * 12].
    """
    cells = score_ext.thumbnails(pixels.reshape(len(pixels), CHANNELS, -1, side, side), CELLS, CELLS)
    return _standardised(cells[patches].transpose(1, 2), grids)


def of_patches(frames: Tensor, side: int, grids: Sequence[tuple[int, int, int]]) -> PackedVideos:
    """Thumbnails of the patches of uncut frames [T, 3, H, W] of any number of videos, of one token a patch.

    Args:
        frames: of all videos, one after the other.
        side, grids: as for :func:`of_tokens`.
    """
    patches = patches_of(frames, side).flatten(0, 1)
    each = torch.arange(len(patches), device=frames.device)[:, None]
    return of_tokens(patches, side, each, grids)


def patches_of(frames: Tensor, side: int) -> Tensor:
    """[T, C, H, W] -> [T, rows * columns, C, side, side]."""
    patches = frames.unfold(2, side, side).unfold(3, side, side)  # [T, C, rows, columns, side, side]
    return patches.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)


def of_frames(pixels: Tensor, grids: Sequence[tuple[int, int, int]]) -> PackedVideos:
    """Thumbnails of whole frames [T, 3, H, W] of any number of videos, of one token a frame: float32 [T, 192]."""
    return _standardised(score_ext.thumbnails(pixels[:, :, None], FRAME_CELLS, FRAME_CELLS), grids)


def _standardised(cells: Tensor, grids: Sequence[tuple[int, int, int]]) -> PackedVideos:
    """cells: [L, 3, ...]."""
    values = cells.reshape(len(cells), CHANNELS, -1)
    parts = []
    for part in values.split([frames * rows * columns for frames, rows, columns in grids]):  # type: ignore[no-untyped-call]
        mean = part.mean((0, 2), keepdim=True)
        deviation = (part - mean).square().mean((0, 2), keepdim=True).sqrt()
        # a video of one colour stays 0: without a floor the rounding of its mean would look like a picture
        least = part.abs().amax((0, 2), keepdim=True) * 1e-4 if len(part) else torch.zeros_like(mean)
        parts.append((part - mean) / torch.maximum(deviation, least).clamp(min=torch.finfo(torch.float32).tiny))
    return PackedVideos.from_grids(torch.cat(parts).flatten(1), grids)
