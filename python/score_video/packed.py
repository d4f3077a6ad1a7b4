"""A ragged batch of encoded videos, packed: what policies, compressors and environments hand to each other."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from score_video.errors import ScoreError
from score_video.whitened import whitened

SEGMENT = 64
"""Frames of a segment, at most; our choice (docs/composite.md)."""


@dataclass(frozen=True)
class PackedVideos:
    """The visual tokens of B videos, one video after the other, frame-major, each frame row by row.

    Attributes:
        tokens: [L, D] float32, float16 or bfloat16, as the vision tower (and projector) left them.
        cu_seqlens: int32 [B + 1]; video b is rows ``cu_seqlens[b]`` to ``cu_seqlens[b + 1]``.
        tokens_per_frame: int32 [B], N; divides its video's length.
        columns: int32 [B], tokens in a row of a frame; divides ``tokens_per_frame``.
        num_frames: the frames of all videos together, on the host; None where only the tensors know. With it nothing
            need wait for a GPU to count them.
    """

    tokens: Tensor
    cu_seqlens: Tensor
    tokens_per_frame: Tensor
    columns: Tensor
    num_frames: int | None = None

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

    @cached_property
    def segments(self) -> PackedVideos:
        """The same tokens, videos of more than ``SEGMENT`` frames cut into segments, as equal as can be.

        What is told by a token's place among those of its video, how rare it is there, is told within a segment: an
        hour of film is a mixture of so many scenes that nothing stands out in all of it. May end with empty videos.
        Does not wait for a device that ``num_frames`` makes it unnecessary to ask.
        """
        if self.num_frames is not None and self.num_frames <= SEGMENT:
            return self
        frames = self.lengths.long() // self.tokens_per_frame.clamp(min=1)  # [B]
        parts = (frames + SEGMENT - 1) // SEGMENT  # [B], 0 for an empty video
        on_host = _on_host(frames) or self.num_frames is None
        if on_host and not bool((parts > 1).any()):
            return self
        count = int(parts.sum()) if on_host else (self.num_frames or 0) // SEGMENT + self.num_videos
        ends = parts.cumsum(0)
        number = torch.arange(count, device=frames.device)  # of each segment, and of those that may be too many
        video = torch.searchsorted(ends, number, right=True).clamp(max=self.num_videos - 1)
        last = (number - (ends - parts)[video] + 1).minimum(parts[video])
        until = frames[video] * last // parts[video].clamp(min=1)  # frames of its video up to its end
        cu_seqlens = self.cu_seqlens[video].long() + until * self.tokens_per_frame[video]
        return PackedVideos(
            self.tokens,
            torch.cat([self.cu_seqlens[:1], cu_seqlens.int()]),
            self.tokens_per_frame[video],
            self.columns[video],
            self.num_frames,
        )

    @cached_property
    def whitened(self) -> Tensor:
        """float32 [L, W + 1], the tokens of each of the :attr:`segments` whitened
        (:func:`score_video.whitened.whitened`); computed once."""
        return whitened(self.tokens, self.segments.cu_seqlens)

    @property
    def grid(self) -> tuple[int, int, int]:
        """Frames, rows and columns of tokens, of a batch of one. Waits for the device.

        Raises:
            ScoreError: there is not exactly one video.
        """
        if self.num_videos != 1:
            raise ScoreError(f"videos must be one to have a grid, got {self.num_videos}")
        per_frame, columns = int(self.tokens_per_frame[0]), int(self.columns[0])
        return len(self.tokens) // per_frame, per_frame // columns, columns

    @property
    def in_first_frame(self) -> Tensor:
        """bool [L]: whether each token is in its video's first frame."""
        video = self.video_of_token
        place = torch.arange(len(self.tokens), device=video.device) - self.cu_seqlens[:-1][video]
        return place < self.tokens_per_frame[video]

    @staticmethod
    def from_frames(videos: Sequence[Tensor]) -> PackedVideos:
        """Packs videos of tokens [T, rows, columns, D] (any T, also 0; one D and dtype)."""
        if not videos or any(video.ndim != 4 for video in videos):
            raise ScoreError("videos must be a non-empty sequence of tensors [frames, rows, columns, width]")
        lengths = [video.shape[0] * video.shape[1] * video.shape[2] for video in videos]
        sizes = [(video.shape[1] * video.shape[2], video.shape[2]) for video in videos]
        return _with_sizes(torch.cat([video.reshape(-1, video.shape[-1]) for video in videos]), lengths, sizes)

    @staticmethod
    def from_grids(tokens: Tensor, grids: Sequence[tuple[int, int, int]]) -> PackedVideos:
        """Packs videos whose tokens already stand one after the other.

        Args:
            tokens: [L, D].
            grids: for each video its frames, and the rows and columns of tokens in a frame; any of them may be 0.

        Raises:
            ValueError: ``grids`` is empty, or is not of L tokens.
        """
        lengths = [frames * rows * columns for frames, rows, columns in grids]
        if not grids or sum(lengths) != len(tokens):
            raise ScoreError(f"grids must be of the {len(tokens)} tokens, got {len(grids)} of {sum(lengths)}")
        sizes = [(rows * columns, columns) for _, rows, columns in grids]
        return _with_sizes(tokens, lengths, sizes)

    @staticmethod
    def cat(batches: Sequence[PackedVideos]) -> PackedVideos:
        """All videos of several batches, in order, as one batch. Does not wait for the device.

        Args:
            batches: one or more, of one width and dtype, on one device.
        """
        if not batches:
            raise ScoreError("batches must not be empty")
        frames = [batch.num_frames for batch in batches if batch.num_frames is not None]
        return PackedVideos(
            torch.cat([batch.tokens for batch in batches]),
            offsets(torch.cat([batch.lengths for batch in batches])),
            torch.cat([batch.tokens_per_frame for batch in batches]),
            torch.cat([batch.columns for batch in batches]),
            sum(frames) if len(frames) == len(batches) else None,
        )

    def to(self, device: torch.device | str) -> PackedVideos:
        """The same on another device; itself where it is there already."""
        if self.tokens.device == torch.device(device):
            return self
        parts = (self.tokens, self.cu_seqlens, self.tokens_per_frame, self.columns)
        tokens, cu_seqlens, tokens_per_frame, columns = (_moved(part, device) for part in parts)
        return PackedVideos(tokens, cu_seqlens, tokens_per_frame, columns, self.num_frames)


def offsets(lengths: Tensor) -> Tensor:
    """int32 [B + 1], the ``cu_seqlens`` of videos of these lengths, [B]. Does not wait for the device."""
    return torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()


def _on_host(tensor: Tensor) -> bool:
    """Whether the host can look at it without waiting for another device."""
    return tensor.device.type == "cpu"


def _moved(tensor: Tensor, device: torch.device | str) -> Tensor:
    # towards the CPU a copy that does not block could be read before it is there
    return tensor.to(device, non_blocking=torch.device(device).type != "cpu")


def _with_sizes(tokens: Tensor, lengths: Sequence[int], sizes: Sequence[tuple[int, int]]) -> PackedVideos:
    """Packed tokens [L, D] with the lengths and (tokens per frame, columns) of their videos."""
    device = tokens.device
    per_frame, columns = torch.tensor(list(zip(*sizes, strict=True)), dtype=torch.int32, device="cpu")
    cu_seqlens = torch.tensor(list(itertools.accumulate(lengths, initial=0)), dtype=torch.int32, device="cpu")
    return PackedVideos(
        tokens,
        # non_blocking: a copy that blocks would wait for all that the device has still to do
        cu_seqlens.to(device, non_blocking=True),
        per_frame.to(device, non_blocking=True),
        columns.to(device, non_blocking=True),
        sum(length // frame for length, (frame, _) in zip(lengths, sizes, strict=True) if length),
    )


@dataclass(frozen=True)
class Selection:
    """Which tokens are kept, of one choice for each video or of G choices.

    Attributes:
        index: int64 [K], rows of the packed batch: choice by choice, in it video by video, ascending.
        keep: int32 [B], or [G, B] for G choices: how many of them are whose.
    """

    index: Tensor
    keep: Tensor

    def to(self, device: torch.device | str) -> Selection:
        """The same on another device."""
        return Selection(_moved(self.index, device), _moved(self.keep, device))


class Selector(Protocol):
    """Anything that chooses tokens: a :class:`score_video.Compressor`, or an object of your own.

    One that is to be given the question says so by an attribute ``needs_question`` that is true; without it there is
    none.
    """

    def select(
        self, videos: PackedVideos, question: Tensor | None = None, keep: Sequence[int] | None = None
    ) -> Selection:
        """Which tokens to keep.

        Args:
            videos: B videos.
            question: [B, E], an embedding of each video's question, for what looks at it; else None.
            keep: B counts that must be kept, where the caller has fixed them; None: as many as it likes.
        """
        ...


def needs_question(selector: object) -> bool:
    """Whether a selector asks for the question (its attribute of that name; without one: no)."""
    return bool(getattr(selector, "needs_question", False))


def check_selection(selected: Selection, videos: PackedVideos) -> None:
    """Raises ScoreError for a selection, one choice for each video, that is not of these. Waits for the device once."""
    index, keep = selected.index, selected.keep
    if index.dtype != torch.int64 or index.ndim != 1:
        raise ScoreError(f"selected.index must be int64 [K], got {described(index)}")
    if keep.dtype.is_floating_point or keep.shape != (videos.num_videos,):
        raise ScoreError(f"selected.keep must be integers [{videos.num_videos}], got {described(keep)}")
    rows, batch = len(videos.tokens), videos.num_videos
    ascending = (index[1:] > index[:-1]).all()
    ends = torch.searchsorted(index, videos.cu_seqlens.long())  # of ascending rows, how many lie before each video
    numbers: list[int] = torch.cat([ends, keep, ascending[None]]).tolist()
    if not numbers[-1] or numbers[0] > 0 or numbers[batch] < len(index):
        raise ScoreError(f"selected.index must be ascending rows of {rows} tokens")
    counts = [end - begin for begin, end in itertools.pairwise(numbers[: batch + 1])]
    if counts != numbers[batch + 1 : -1]:
        raise ScoreError(f"selected.keep must be how many rows of index are each video's: {counts}")


def described(value: object) -> str:
    """What an error says of a value that was to be a tensor: its dtype and shape, or its type."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def check_sizes(videos: PackedVideos) -> None:
    """Raises TypeError or ValueError unless the sizes fit the tokens; those that lie on a GPU are not looked at."""
    if videos.tokens.ndim != 2 or videos.tokens.shape[1] < 1:
        raise ScoreError(f"tokens must be [L, D], D at least 1, got {list(videos.tokens.shape)}")
    if videos.cu_seqlens.ndim != 1 or videos.num_videos < 1:
        raise ScoreError(f"cu_seqlens must be [videos + 1], at least 2 numbers, got {list(videos.cu_seqlens.shape)}")
    for name in ("cu_seqlens", "tokens_per_frame", "columns"):
        value = getattr(videos, name)
        if value.dtype != torch.int32:
            raise TypeError(f"{name} must be int32, got {str(value.dtype).removeprefix('torch.')}")
        if name != "cu_seqlens" and value.shape != (videos.num_videos,):
            raise ScoreError(f"{name} must be [{videos.num_videos}], one for each video, got {list(value.shape)}")
    if videos.cu_seqlens.device.type == "cpu":
        _check_values(videos)


def _check_values(videos: PackedVideos) -> None:
    ends = videos.cu_seqlens.tolist()
    if ends[0] != 0 or ends[-1] != len(videos.tokens):
        raise ScoreError(f"cu_seqlens must run from 0 to the {len(videos.tokens)} tokens, got {ends[0]} to {ends[-1]}")
    sizes = zip(videos.lengths.tolist(), videos.tokens_per_frame.tolist(), videos.columns.tolist(), strict=True)
    for video, (length, per_frame, columns) in enumerate(sizes):
        if length < 0:
            raise ScoreError(f"cu_seqlens must not fall, got {ends[video]} before {ends[video + 1]}")
        if length == 0:
            continue
        if per_frame < 1 or length % per_frame:
            raise ScoreError(f"tokens_per_frame[{video}] must divide its video's {length} tokens, got {per_frame}")
        if columns < 1 or per_frame % columns:
            raise ScoreError(f"columns[{video}] must divide its video's {per_frame} tokens per frame, got {columns}")
