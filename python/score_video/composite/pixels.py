"""Training in front of a real tower: policies see thumbnails, and the tower what they choose."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from score_video.before_tower import check_pixels, widened
from score_video.composite.environment import CompositeEnvironment, CompositePayload
from score_video.composite.features import fingerprint, fitted
from score_video.composite.reader import Reader
from score_video.composite.scenery import FRAMES
from score_video.composite.world import COLUMNS, TOKENS, Partition, make_video
from score_video.errors import ScoreError
from score_video.rl.environment import EncodedBatch
from score_video.video.partial_tower import check_partial, tokens_of_embedded
from score_video.video.tower import VisionTower


@dataclass
class CompositePixelPayload(CompositePayload):
    """What answering needs besides.

    Attributes:
        embedded: what the tower's embeddings make of the videos' patches, [B * FRAMES, 1 + TOKENS_PER_FRAME, D].
    """

    embedded: Tensor | None = None


class CompositePixelEnvironment(CompositeEnvironment):
    """As :class:`CompositeEnvironment` with ``pixels``, but each sample is answered from what the tower makes of the
    tokens in it when it sees these and their halo alone. The tower runs once for each sample, on that part.

    Args:
        reader: weights of a reader, of :mod:`score_video.composite.train_reader`.
        features: a folder of :mod:`score_video.composite.features`, made by the reader's own tower, for the thumbnails
            and answers in it.
        partition: the one whose videos examples name.
        media: folder of the media, from which videos are made anew.
        tower: the reader's own, a DINOv2.
        num_videos: how many videos, a multiple of 20; None: as many as have been made, from the first on.
        halo: how many rings of neighbours in the frame the tower sees besides.

    Raises:
        ScoreError: as :class:`CompositeEnvironment`; another tower than the reader's, or one that cannot be run in
            part; another ``halo`` than an integer from 0.
    """

    def __init__(
        self,
        reader: Path | Reader,
        features: Path,
        partition: Partition,
        media: Path,
        tower: VisionTower,
        num_videos: int | None = None,
        halo: int = 0,
    ) -> None:
        check_pixels(True, halo)
        check_partial(tower)
        super().__init__(reader, features, partition, num_videos, pixels=True)
        self._media, self._tower, self._halo = media, fitted(tower), halo
        if fingerprint(self._tower) != self.reader.config.tower:
            raise ScoreError(f"tower must be the reader's, {self.reader.config.tower}, got {fingerprint(self._tower)}")

    def of_partition(self, partition: Partition, num_videos: int) -> CompositePixelEnvironment:
        """The same for videos of another partition."""
        return CompositePixelEnvironment(
            self.reader, self._folder, partition, self._media, self._tower, num_videos, self._halo
        )

    @torch.no_grad()
    def batch(self, numbers: Tensor, still: bool = False) -> EncodedBatch:
        """As :meth:`CompositeEnvironment.batch`; makes the videos besides, some tenths of a second each."""
        made = super().batch(numbers, still)
        partition = "still" if still else self._partition
        videos = [make_video(self._media, partition, number).pixels for number in numbers.tolist()]
        embedded = [self._tower.model.embeddings(self._tower.pixels(video)) for video in videos]
        return replace(made, payload=CompositePixelPayload(**vars(made.payload), embedded=torch.cat(embedded)))

    def read(self, batch: EncodedBatch, rows: Tensor, mask: Tensor | None) -> Tensor:
        """See :class:`~score_video.rl.multiple_choice.ReaderEnvironment`."""
        assert isinstance(batch.payload, CompositePixelPayload) and batch.payload.embedded is not None
        there = torch.ones_like(rows, dtype=torch.bool) if mask is None else mask
        sample = torch.arange(len(rows))[:, None].expand_as(rows)[there]
        places, video = rows[there] % TOKENS, rows[:, 0] // TOKENS
        chosen = torch.zeros(len(rows), TOKENS, dtype=torch.bool)
        chosen[sample, places] = True
        seen = widened(chosen.view(-1, COLUMNS, COLUMNS), self._halo).flatten().nonzero()[:, 0]
        frames = (video[:, None] * FRAMES + torch.arange(FRAMES)).flatten()  # of all samples, one after the other
        made = tokens_of_embedded(self._tower, batch.payload.embedded, seen, frames)
        tokens = torch.zeros(*rows.shape, self.reader.config.token_width)
        tokens[there] = made[torch.searchsorted(seen, sample * TOKENS + places)].float()
        return self.reader.read(tokens, self._place[rows % TOKENS], mask)[0]
