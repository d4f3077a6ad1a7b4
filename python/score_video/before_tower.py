"""A choice before the vision tower: what a gate keeps of a video's pixels, and what is made of the tower's output.

The gate goes by small pictures of the tokens (:mod:`score_video.thumbnails`). The vision tower runs on what it
keeps, and on a halo around that if it is asked for; what it did not see is filled in, so that policies and rules which
look at a token's neighbours find some (docs/before_the_tower.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.functional import pad

import score_ext
from score_video.checks import is_integer
from score_video.errors import ScoreError
from score_video.packed import PackedVideos, Selection, Selector, offsets

WHOLE_FIRST_FRAME = ("surprise", "surprise-l2", "evs")
"""Rules that keep a video's first frame before anything else."""


@dataclass(frozen=True)
class Seen:
    """What a vision tower has seen of a batch of videos.

    Attributes:
        kept: the gate's choice, one for each video; only these can be kept after the tower.
        encoded: int64 [E], ascending rows that the tower ran on: ``kept.index`` and its halo.
        counts: what ``kept.keep`` holds, where the host knows it: choosing among what was seen then does not wait for
            the device to say.
    """

    kept: Selection
    encoded: Tensor
    counts: tuple[int, ...] | None = None

    def to(self, device: torch.device | str) -> Seen:
        """The same on another device."""
        return Seen(self.kept.to(device), self.encoded.to(device), self.counts)


@runtime_checkable
class Identified(Protocol):
    """What can be told from others of its kind."""

    def identity(self) -> str | None:
        """A hash of all that a choice follows from; None: it is not known."""
        ...


@dataclass(frozen=True)
class Gate:
    """Chooses what a vision tower sees.

    Attributes:
        selector: chooses, from thumbnails.
        halo: how many rings of neighbours in the frame the tower sees besides: tokens at most so many steps to the
            left, right, up or down. What it makes of them is dropped.
        name: what the selector goes by, for errors and checks.
    """

    selector: Selector
    halo: int = 0
    name: str = ""

    def identity(self) -> dict[str, object]:
        """What a choice follows from beside the video, as JSON can hold it: for caches.

        Raises:
            ScoreError: the selector cannot be told from another, as a rule of your own.
        """
        described = self.selector.identity() if isinstance(self.selector, Identified) else None
        if described is None:
            raise ScoreError(f"before_tower must be a policy or a named rule for a cache of features, got {self.name}")
        return {"selector": described, "halo": self.halo}

    def choose(self, thumbnails: PackedVideos) -> Seen:
        """What is to be seen of videos, whose tokens here are thumbnails [L, W].

        Raises:
            ScoreError: a rule that keeps the first frame first would keep less than two frames of a video; or the
                selector cannot choose from thumbnails, as a policy for tokens of another width.
        """
        try:
            kept = self.selector.select(thumbnails)
        except ScoreError as error:
            raise ScoreError(f"before_tower ({self.name}): {error}") from error
        if self.name in WHOLE_FIRST_FRAME:
            _check_two_frames(self.name, thumbnails, kept)
        return Seen(kept, with_halo(thumbnails, kept.index, self.halo))


def check_pixels(pixels: bool, halo: int, gate: Gate | None = None, one_question: bool = False) -> None:
    """Raises ScoreError for what does not go with policies that choose before the tower, or without them.

    Args:
        pixels: whether policies see thumbnails, and the tower what they choose.
        halo: rings of neighbours that the tower sees besides; a gate has its own.
        gate: what chooses there otherwise.
        one_question: whether policies see the question.
    """
    if not isinstance(pixels, bool):
        raise ScoreError(f"pixels must be true or false, got {pixels!r}")
    if not is_integer(halo) or halo < 0 or (halo and not pixels):
        raise ScoreError(f"halo must be {'0 or more' if pixels else '0 without pixels'}, got {halo!r}")
    if pixels and gate is not None:
        raise ScoreError(f"pixels must be false with before_tower ({gate.name}), whose place the policy is to take")
    if pixels and one_question:
        raise ScoreError("one_question must be false with pixels: there are no features to compare a question with")


def with_halo(videos: PackedVideos, index: Tensor, rings: int) -> Tensor:
    """Rows int64 [K], and those at most ``rings`` steps from one of them within its frame: int64 [E], ascending."""
    if not rings:
        return index
    seen = videos.tokens.new_zeros(len(videos.tokens), dtype=torch.bool).index_fill_(0, index, True)
    starts, sizes = (
        videos.cu_seqlens.tolist(),
        zip(videos.tokens_per_frame.tolist(), videos.columns.tolist(), strict=True),
    )
    for start, end, (per_frame, columns) in zip(starts[:-1], starts[1:], sizes, strict=True):
        if start == end:
            continue
        frames = seen[start:end].view(-1, per_frame // columns, columns)
        seen[start:end] = widened(frames, rings).flatten()
    return seen.nonzero()[:, 0]


def widened(frames: Tensor, rings: int) -> Tensor:
    """bool [..., rows, columns], and True besides at most ``rings`` steps to the left, right, up or down of a True."""
    for _ in range(min(rings, sum(frames.shape[-2:]))):  # after so many steps every place is reached
        wide = pad(frames, (1, 1, 1, 1))
        across, down = wide[..., 1:-1, :-2] | wide[..., 1:-1, 2:], wide[..., :-2, 1:-1] | wide[..., 2:, 1:-1]
        frames = frames | across | down
    return frames


def fill_sources(videos: PackedVideos, index: Tensor) -> Tensor:
    """For each token where what stands in its place comes from (our reading: what was not seen has not changed).

    Args:
        videos: the batch, L tokens.
        index: int64 [K], ascending rows that were seen.

    Returns:
        int64 [L], numbers of rows of ``index``: of the token itself; else of the latest one seen before it at its
        place; else of the next one there; -1 where there is none in the whole video.
    """
    number = torch.full((len(videos.tokens),), -1, device=index.device)
    number[index] = torch.arange(len(index), device=index.device)
    starts = videos.cu_seqlens.tolist()
    for start, end, per_frame in zip(starts[:-1], starts[1:], videos.tokens_per_frame.tolist(), strict=True):
        if start == end:
            continue
        own = number[start:end].view(-1, per_frame)  # [T, N]
        frame = torch.arange(len(own), device=index.device)[:, None].expand_as(own)
        before = frame.where(own >= 0, -1).cummax(0).values
        after = frame.where(own >= 0, len(own)).flip(0).cummin(0).values.flip(0)
        source = before.where(before >= 0, after.clamp(max=len(own) - 1))
        number[start:end] = own.gather(0, source).flatten()
    return number


def filled(rows: Tensor, sources: Tensor) -> Tensor:
    """Rows [K, D] in the places of all L tokens, by :func:`fill_sources`; 0 where there is no source."""
    if not len(rows):
        return rows.new_zeros(len(sources), rows.shape[1])
    return score_ext.gather(rows, sources.clamp(min=0)) * (sources >= 0)[:, None]


def fill_in(videos: PackedVideos, index: Tensor) -> PackedVideos:
    """A whole tower's tokens as they are where it sees the rows int64 [K], ascending, alone: the others filled in."""
    return replace(videos, tokens=filled(videos.tokens[index], fill_sources(videos, index)))


def only(videos: PackedVideos, kept: Selection) -> PackedVideos:
    """The kept tokens alone, each video as one frame of one row: for what looks at tokens, not at where they are."""
    sizes = kept.keep.int()
    return PackedVideos(score_ext.gather(videos.tokens, kept.index), offsets(sizes), sizes, sizes, len(sizes))


def _check_two_frames(name: str, thumbnails: PackedVideos, kept: Selection) -> None:
    sizes = zip(kept.keep.tolist(), thumbnails.tokens_per_frame.tolist(), thumbnails.lengths.tolist(), strict=True)
    for video, (count, per_frame, length) in enumerate(sizes):
        if count < min(length, 2 * per_frame):
            frames = length // per_frame
            enough = min(1.0, math.ceil(2000 / frames) / 1000)
            more = " or more" if enough < 1 else ""
            raise ScoreError(
                f"before_tower must keep at least two frames' worth of a video with {name!r}, which keeps the whole "
                f"first frame before anything else: of the {frames} frames of video {video} it keeps "
                f"{count / per_frame:.2f}. Give it a retention of {enough:g}{more}, or take another rule"
            )
