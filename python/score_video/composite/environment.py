"""The semi-real world as a thing to train on: kept features of a real tower, and the reader as the frozen MLLM."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from score_video.before_tower import Seen
from score_video.checks import is_integer
from score_video.composite.features import Features, kept_gate, load_features, tower_of, videos_made
from score_video.composite.reader import Reader
from score_video.composite.scenery import FRAMES
from score_video.composite.world import COLUMNS, TASK_NAMES, TOKENS, Partition, check_partition
from score_video.errors import ScoreError
from score_video.miniature.reader import grid_places
from score_video.packed import PackedVideos
from score_video.rl.environment import EncodedBatch, Example, Selection
from score_video.rl.multiple_choice import ReaderEnvironment
from score_video.thumbnails import PATCH_WIDTH

VIDEOS_AT_ONCE = 20  # that are evaluated


class CompositeVideos(Dataset[Example]):
    """Videos by number, as examples for :class:`CompositeEnvironment`.

    Args:
        num_videos: how many there are.
        still: they are those of the partition still, whatever the environment's is. For a stage of the curriculum of
            their own: a batch with both is refused.
    """

    def __init__(self, num_videos: int, still: bool = False) -> None:
        if num_videos < 0:
            raise ScoreError(f"num_videos must be 0 or more, got {num_videos}")
        self._num_videos, self._still = num_videos, still

    def __len__(self) -> int:
        return self._num_videos

    def __getitem__(self, number: int) -> dict[str, Any]:
        if not 0 <= number < self._num_videos:
            raise IndexError(f"there are {self._num_videos} videos, got number {number}")
        return {"number": number, "still": self._still}


@dataclass
class CompositePayload:
    """What is known about an encoded batch beyond its tokens.

    Attributes:
        features: those of its videos.
        log_probabilities: [B, tasks, A] on all tokens, once they have been asked for.
    """

    features: Features
    log_probabilities: Tensor | None = None

    @property
    def answers(self) -> Tensor:
        """int64 [B, tasks], NOT_ASKED where the question makes no sense."""
        return self.features.answers


class CompositeEnvironment(ReaderEnvironment):
    """A frozen reader and kept features (:class:`score_video.rl.environment.Environment`).

    Args:
        reader: weights of a reader, of :mod:`score_video.composite.train_reader`.
        features: a folder of :mod:`score_video.composite.features`, made by the reader's own tower.
        partition: the one whose videos examples name. Those with ``still`` name videos of the partition still.
        num_videos: how many of them, a multiple of 20; None: as many as have been made, from the first on.
        gate: name of the folder in ``features`` that those behind a gate are in; None: the tower has seen everything.
        pixels: policies see thumbnails in place of features, as one that is to choose before the tower does. The reader
            reads features of the whole tower.

    Raises:
        ScoreError: features are missing, another tower made them, or ``pixels`` goes with a gate or with features of
            an earlier release, which have no thumbnails.
    """

    task_names = TASK_NAMES

    def __init__(
        self,
        reader: Path | Reader,
        features: Path,
        partition: Partition,
        num_videos: int | None = None,
        gate: str | None = None,
        pixels: bool = False,
    ) -> None:
        self._folder, self._partition, self._gate, self._pixels = features, partition, gate, pixels
        self.gate = None if gate is None else kept_gate(features / gate)
        self.reader = (reader if isinstance(reader, Reader) else Reader.load(reader)).eval().requires_grad_(False)
        self.features = self._load(partition, num_videos)
        self._place = grid_places(FRAMES, COLUMNS)  # [TOKENS, 3]

    @property
    def token_width(self) -> int:
        """D of the tokens that a policy will see."""
        return PATCH_WIDTH if self._pixels else self.reader.config.token_width

    def of_partition(self, partition: Partition, num_videos: int) -> CompositeEnvironment:
        """The same reader, folder of features and gate, for videos of another partition."""
        return CompositeEnvironment(self.reader, self._folder, partition, num_videos, self._gate, self._pixels)

    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        """Looks the examples' features up.

        Raises:
            ScoreError: no examples, or a number that there is not; stills among others, or no features of stills.
        """
        if not examples:
            raise ScoreError("examples must not be empty")
        numbers, still = [example.get("number") for example in examples], examples[0].get("still", False)
        if not isinstance(still, bool) or any(example.get("still", False) is not still for example in examples):
            given = sorted({repr(example.get("still", False)) for example in examples})
            raise ScoreError(f"still must be true or false and the same in a batch, got {' and '.join(given)}")
        count, partition = len(self._stills if still else self.features), "still" if still else self._partition
        for number in numbers:
            if not is_integer(number) or not 0 <= number < count:
                raise ScoreError(f"number must be one of 0 to {count - 1}, the {partition} videos made, got {number!r}")
        return self.batch(torch.tensor(numbers), still)

    @cached_property
    def _stills(self) -> Features:
        return self._load("still", None)

    def _load(self, partition: Partition, num_videos: int | None) -> Features:
        check_partition(partition)
        folder = self._folder if self._gate is None else self._folder / self._gate
        tower = tower_of(folder, partition)
        if tower != self.reader.config.tower:
            raise ScoreError(f"features must be of the reader's tower, {self.reader.config.tower}, got {tower}")
        if num_videos is None:
            num_videos = videos_made(folder, partition)
        features = load_features(folder, partition, range(num_videos))
        if self._pixels and features.thumbnails is None:
            of_whole = "an earlier release made them, or their tokens are merged"
            why = of_whole if self._gate is None else "a policy on pixels is no gate's successor"
            raise ScoreError(f"pixels must be False for the features in {folder}, which have no thumbnails: {why}")
        return features

    def batch(self, numbers: Tensor, still: bool = False) -> EncodedBatch:
        """Packs the videos of int64 [B] numbers, of its partition or of the stills."""
        own = (self._stills if still else self.features).at(numbers)
        tokens = own.thumbnails if self._pixels and own.thumbnails is not None else own.tokens
        grids = tokens.float().view(len(numbers), FRAMES, COLUMNS, COLUMNS, -1)
        seen = None
        if own.kept is not None and own.encoded is not None:
            kept = Selection(own.kept.flatten().nonzero()[:, 0], own.kept.sum(1, dtype=torch.int32))
            seen = Seen(kept, own.encoded.flatten().nonzero()[:, 0])
        return EncodedBatch(PackedVideos.from_frames(list(grids)), CompositePayload(own), seen=seen)

    def batches(self) -> Iterator[EncodedBatch]:
        """All its videos, in order."""
        return map(self.batch, torch.split(torch.arange(len(self.features)), VIDEOS_AT_ONCE))

    def read(self, batch: EncodedBatch, rows: Tensor, mask: Tensor | None) -> Tensor:
        """See :class:`~score_video.rl.multiple_choice.ReaderEnvironment`."""
        tokens = batch.payload.features.tokens.flatten(0, 1) if self._pixels else batch.videos.tokens
        return self.reader.read(tokens[rows].float(), self._place[rows % TOKENS], mask)[0]
