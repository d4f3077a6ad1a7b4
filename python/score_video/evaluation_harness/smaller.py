"""The baselines that need no compressor: the same model on a smaller video of as many tokens.

Frames of fewer pixels, or fewer frames. Either changes what the model's processor gets, after the harness has read the
video, so that all else about a prompt is as without them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from score_ext.budget import keep_count
from score_video.errors import ScoreError

RESIZE, FEWER_FRAMES = "resize", "fewer-frames"
SMALLER = (RESIZE, FEWER_FRAMES)


@dataclass(frozen=True)
class Grid:
    """Tokens of a video: time steps, rows, columns."""

    steps: int
    rows: int
    columns: int

    @property
    def tokens(self) -> int:
        """All of them."""
        return self.steps * self.rows * self.columns


def smaller_grid(grid: Grid, keep: int, kind: str) -> Grid:
    """One of at most ``keep`` tokens, nearly as many, with frames nearly in their shape.

    Args:
        keep: how many tokens may stay, at least 1.
        kind: "resize": all time steps, of fewer tokens; where that leaves not even one for each, fewer time steps.
            "fewer-frames": as few time steps as can use the tokens, their frames scaled down as far as it takes.
    """
    steps = min(grid.steps, keep if kind == RESIZE else -(-keep // (grid.rows * grid.columns)))
    budget = keep // steps
    shape = grid.columns / grid.rows

    def worth(size: tuple[int, int]) -> tuple[float, int]:
        """How many tokens, times how much of the shape is left; of two that are as good the larger is taken."""
        rows, columns = size
        return rows * columns * math.exp(-abs(math.log(columns / rows / shape))), rows * columns

    sizes = ((rows, columns) for rows in range(1, grid.rows + 1) for columns in range(1, grid.columns + 1))
    rows, columns = max((size for size in sizes if size[0] * size[1] <= budget), key=worth)
    return Grid(steps, rows, columns)


class SmallerVideos:
    """A model's processor, which gets smaller videos; everything else of it is as it was.

    Attributes:
        shares: for each video of the latest call, how many times as many tokens the whole one has.
    """

    def __init__(self, processor: Any, kind: str, retention: float) -> None:
        """
        Args:
            processor: a processor of transformers.
            kind: one of ``SMALLER``.
            retention: fraction of each video's tokens, 0 to 1: at most :func:`score_ext.budget.keep_count` of them.

        Raises:
            ScoreError: frames are to be resized whose number of tokens does not go by their size.
        """
        self._processor = processor
        self._kind = kind
        self._retention = retention
        self._sized = hasattr(processor.video_processor, "get_num_of_video_patches")
        if kind == RESIZE and not self._sized:
            raise ScoreError(
                f"compressor must not be {RESIZE} for this model, whose frames have as many tokens whatever their "
                f"size: take {FEWER_FRAMES}"
            )
        self.shares: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def __call__(self, *, videos: Any = None, video_metadata: Any = None, **options: Any) -> Any:
        """As the processor's, of videos [T, 3, H, W], by prompt or not."""
        self.shares = []
        if not videos:
            return self._processor(videos=videos, video_metadata=video_metadata, **options)
        flat = [video for entry in videos for video in (entry if isinstance(entry, list) else [entry])]
        told = video_metadata or [{} for _ in flat]
        if self._sized and options.get("images"):
            raise ScoreError(f"a prompt must show videos alone for compressor={self._kind}, got images too")
        small, metadata = zip(
            *(self._smaller(*pair, options.get("do_resize")) for pair in zip(flat, told, strict=True)), strict=True
        )
        if self._sized:
            options["do_resize"] = False
        nested = [[video] for video in small] if isinstance(videos[0], list) else list(small)
        return self._processor(
            videos=nested, video_metadata=list(metadata) if video_metadata else video_metadata, **options
        )

    def _smaller(
        self, video: Tensor, metadata: Mapping[str, Any], resized: bool | None
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """A video and what is told of it, and notes its share."""
        processor = self._processor.video_processor
        depth = getattr(processor, "temporal_patch_size", None) or 1
        if not self._sized:
            frames = max(1, int(len(video) * self._retention))
            self.shares.append(len(video) / frames)
            return _frames_of(video, metadata, frames)
        side = processor.patch_size * processor.merge_size
        grid = self._grid(video, depth, side, resized)
        small = smaller_grid(grid, keep_count(grid.steps, grid.rows * grid.columns, self._retention), self._kind)
        self.shares.append(grid.tokens / small.tokens)
        fewer, told = _frames_of(video, metadata, min(len(video), small.steps * depth))
        size = (small.rows * side, small.columns * side)
        scaled = interpolate(fewer.float(), size, mode="bicubic", antialias=True).clamp(0, 255)
        scaled = scaled if video.is_floating_point() else scaled.round()
        if "height" in told:
            told = {**told, "height": size[0], "width": size[1]}
        return scaled.to(video.dtype), told

    def _grid(self, video: Tensor, depth: int, side: int, resized: bool | None) -> Grid:
        """As the processor would have it of the whole video."""
        num_frames, _, height, width = video.shape
        steps = -(-num_frames // depth)
        if resized is False:
            return Grid(steps, height // side, width // side)
        processor = self._processor.video_processor
        patches = processor.get_num_of_video_patches(num_frames, height, width, {})
        area = patches // steps // processor.merge_size**2
        pairs = [(rows, area // rows) for rows in range(1, area + 1) if area % rows == 0]
        rows, columns = min(pairs, key=lambda pair: abs(math.log(pair[1] / pair[0] * height / width)))
        return Grid(steps, rows, columns)


def _frames_of(video: Tensor, metadata: Mapping[str, Any], count: int) -> tuple[Tensor, Mapping[str, Any]]:
    """So many frames, evenly spread: the middles of equal spans; and what is told of a video, of these."""
    chosen = [int((number + 0.5) * len(video) / count) for number in range(count)]
    if "frames_indices" not in metadata:
        return video[chosen], metadata
    indices: Sequence[int] = torch.as_tensor(metadata["frames_indices"]).tolist()
    return video[chosen], {**metadata, "frames_indices": [indices[place] for place in chosen]}
