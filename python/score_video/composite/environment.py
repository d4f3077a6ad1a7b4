"""The semi-real world as a thing to train on: kept features of a real tower, and the reader as the frozen MLLM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from score_video.composite.features import Features, load_features, tower_of, videos_made
from score_video.composite.reader import Reader
from score_video.composite.scenery import FRAMES
from score_video.composite.world import COLUMNS, TOKENS, Partition
from score_video.errors import ScoreError
from score_video.miniature.reader import grid_places
from score_video.packed import PackedVideos
from score_video.rl.environment import EncodedBatch, Example, Outcome, Selection
from score_video.rl.multiple_choice import outcome_of

VIDEOS_AT_ONCE = 20  # that are evaluated
_TOKENS_AT_ONCE = 40_000  # that the reader reads


class CompositeVideos(Dataset[Example]):
    """Videos by number, as examples for :class:`CompositeEnvironment`.

    Args:
        num_videos: how many there are.
    """

    def __init__(self, num_videos: int) -> None:
        if num_videos < 0:
            raise ScoreError(f"num_videos must be 0 or more, got {num_videos}")
        self._num_videos = num_videos

    def __len__(self) -> int:
        return self._num_videos

    def __getitem__(self, number: int) -> dict[str, Any]:
        if not 0 <= number < self._num_videos:
            raise IndexError(f"there are {self._num_videos} videos, got number {number}")
        return {"number": number}


@dataclass
class CompositePayload:
    """What is known about an encoded batch beyond its tokens.

    Attributes:
        features: of its videos.
        log_probabilities: [B, tasks, A] on all tokens, once they have been asked for.
    """

    features: Features
    log_probabilities: Tensor | None = None

    @property
    def answers(self) -> Tensor:
        """int64 [B, tasks], NOT_ASKED where the question makes no sense."""
        return self.features.answers


class CompositeEnvironment:
    """A frozen reader and kept features (:class:`score_video.rl.environment.Environment`).

    Args:
        reader: weights of a reader, of :mod:`score_video.composite.train_reader`.
        features: a folder of :mod:`score_video.composite.features`, made by the reader's own tower.
        partition: whose videos examples name.
        num_videos: how many of them, a multiple of 20; None: as many as have been made, from the first on.

    Raises:
        ScoreError: features are missing, or another tower made them.
    """

    def __init__(
        self, reader: Path | Reader, features: Path, partition: Partition, num_videos: int | None = None
    ) -> None:
        self.reader = (reader if isinstance(reader, Reader) else Reader.load(reader)).eval().requires_grad_(False)
        tower = tower_of(features, partition)
        if tower != self.reader.config.tower:
            raise ScoreError(f"features must be of the reader's tower, {self.reader.config.tower}, got {tower}")
        self.folder = features
        if num_videos is None:
            num_videos = videos_made(features, partition)
        self.features = load_features(features, partition, range(num_videos))
        self._place = grid_places(FRAMES, COLUMNS)  # [TOKENS, 3]

    @property
    def token_width(self) -> int:
        """D of the tokens that a policy will see."""
        return self.reader.config.token_width

    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        """Looks the examples' features up. Raises ScoreError for a number that there is not."""
        numbers = [example.get("number") for example in examples]
        for number in numbers:
            if not isinstance(number, int) or not 0 <= number < len(self.features):
                raise ScoreError(f"number must be one of 0 to {len(self.features) - 1}, got {number!r}")
        return self.batch(torch.tensor(numbers))

    def batch(self, numbers: Tensor) -> EncodedBatch:
        """Packs the videos of int64 [B] numbers."""
        own = self.features.at(numbers)
        grids = own.tokens.float().view(len(numbers), FRAMES, COLUMNS, COLUMNS, -1)
        return EncodedBatch(PackedVideos.from_frames(list(grids)), CompositePayload(own))

    def batches(self) -> Iterator[EncodedBatch]:
        """All its videos, in order."""
        return map(self.batch, torch.split(torch.arange(len(self.features)), VIDEOS_AT_ONCE))

    @torch.no_grad()
    def answer(
        self, batch: EncodedBatch, selection: Selection, *, divergence: bool = False, full: bool = False
    ) -> Outcome:
        """See :class:`score_video.rl.environment.Environment`."""
        of_all = self.full_log_probabilities(batch) if divergence or full else None
        log_p = self.log_probabilities(batch, selection)
        return outcome_of(log_p, batch.payload.features.answers, of_all, divergence=divergence, full=full)

    def full_log_probabilities(self, batch: EncodedBatch) -> Tensor:
        """[B, tasks, A] on all tokens; computed once for a batch."""
        payload: CompositePayload = batch.payload
        if payload.log_probabilities is None:
            everything = Selection(torch.arange(len(batch.videos.tokens)), batch.videos.lengths[None])
            payload.log_probabilities = self.log_probabilities(batch, everything)[0]
        return payload.log_probabilities

    @torch.no_grad()
    def log_probabilities(self, batch: EncodedBatch, selection: Selection) -> Tensor:
        """Log-probabilities of all answers from the kept tokens alone, [G, B, tasks, A]."""
        keep = selection.keep.flatten().long()  # [G * B]
        at_once = max(1, _TOKENS_AT_ONCE // max(1, int(keep.max())))
        counts = torch.split(keep, at_once)
        rows = torch.split(selection.index, [int(part.sum()) for part in counts])
        parts = [self._read(batch, own, count) for own, count in zip(rows, counts, strict=True)]
        together = torch.cat(parts)
        return together.view(*selection.keep.shape, *together.shape[1:])

    def _read(self, batch: EncodedBatch, rows: Tensor, keep: Tensor) -> Tensor:
        mask = torch.arange(max(1, int(keep.max()))) < keep[:, None]  # [samples, n]
        padded = torch.zeros(mask.shape, dtype=torch.int64)
        padded[mask] = rows
        place = self._place[padded % TOKENS]
        return self.reader.read(batch.videos.tokens[padded], place, None if bool(mask.all()) else mask)[0]
