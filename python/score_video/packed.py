"""A ragged batch of encoded videos, packed: what policies, compressors and environments hand to each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PackedVideos:
    """The visual tokens of B videos, one video after the other, frame-major, each frame row by row.

    Attributes:
        tokens: [L, D] float32, float16 or bfloat16, as the vision tower (and projector) left them.
        cu_seqlens: int32 [B + 1]; video b is rows ``cu_seqlens[b]`` to ``cu_seqlens[b + 1]``.
        tokens_per_frame: int32 [B], N; divides its video's length.
        columns: int32 [B], tokens in a row of a frame; divides ``tokens_per_frame``.
    """

    tokens: Tensor
    cu_seqlens: Tensor
    tokens_per_frame: Tensor
    columns: Tensor

    @property
    def num_videos(self) -> int:
        """B."""
        return self.cu_seqlens.shape[0] - 1

    @property
    def lengths(self) -> Tensor:
        """int32 [B], the tokens of each video."""
        return self.cu_seqlens.diff()

    @property
    def video_of_token(self) -> Tensor:
        """int64 [L], the number of each token's video."""
        videos = torch.arange(self.num_videos, device=self.tokens.device)
        return videos.repeat_interleave(self.lengths, output_size=self.tokens.shape[0])

    @staticmethod
    def from_frames(videos: Sequence[Tensor]) -> PackedVideos:
        """Packs videos of tokens [T, rows, columns, D] (any T, also 0; one D and dtype)."""
        if not videos or any(video.ndim != 4 for video in videos):
            raise ValueError("videos must be a non-empty sequence of tensors [frames, rows, columns, width]")
        lengths = [video.shape[0] * video.shape[1] * video.shape[2] for video in videos]
        device = videos[0].device
        pairs = [(video.shape[1] * video.shape[2], video.shape[2]) for video in videos]
        sizes = torch.tensor(pairs, dtype=torch.int32, device="cpu")
        ends = list(itertools.accumulate(lengths, initial=0))
        cu_seqlens = torch.tensor(ends, dtype=torch.int32, device="cpu")
        return PackedVideos(
            torch.cat([video.reshape(-1, video.shape[-1]) for video in videos]),
            # non_blocking: a copy that blocks would wait for all that the device has still to do
            cu_seqlens.to(device, non_blocking=True),
            sizes[:, 0].contiguous().to(device, non_blocking=True),
            sizes[:, 1].contiguous().to(device, non_blocking=True),
        )
