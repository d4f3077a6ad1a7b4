"""Packed batches of random tokens that many tests share."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

from score_video.packed import PackedVideos

# (frames, rows, columns) of each video
RAGGED = ((3, 2, 4), (0, 2, 2), (1, 3, 1), (6, 2, 4), (2, 1, 1), (5, 1, 3))

shapes = st.lists(st.tuples(st.integers(0, 6), st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4)


def random_frames(shape: tuple[int, int, int], width: int, seed: int = 0) -> Tensor:
    """Tokens [frames, rows, columns, width] of different norms, some zero, some as they were in the frame before."""
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(*shape, width, generator=generator) + torch.randn(width, generator=generator)
    frames *= torch.rand(*shape, 1, generator=generator).mul(6).exp()
    still = torch.rand(*shape, 1, generator=generator) < 0.3
    for t in range(1, shape[0]):
        frames[t] = torch.where(still[t], frames[t - 1], frames[t])
    return frames * (torch.rand(*shape, 1, generator=generator) > 0.1)


def random_videos(
    shapes: tuple[tuple[int, int, int], ...] = RAGGED,
    width: int = 6,
    dtype: torch.dtype = torch.float32,
) -> PackedVideos:
    return PackedVideos.from_frames([random_frames(shape, width, seed).to(dtype) for seed, shape in enumerate(shapes)])
