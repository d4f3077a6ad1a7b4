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
from score_video.video.partial_tower import check_partial, thumbnails_of, tokens_of_embedded
from score_video.video.tower import VisionTower


@dataclass(kw_only=True)
class CompositePixelPayload(CompositePayload):
    """What answering needs besides.

    Attributes:
        embedded: what the tower's embeddings make of the videos' patches, [B * FRAMES, 1 + TOKENS_PER_FRAME, D].
    """

    embedded: Tensor


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
        """As :meth:`CompositeEnvironment.batch`; makes the videos besides, a quarter of a second each.

        Raises:
            ScoreError: a medium is missing, or they are not the videos that the features were made of.
        """
        made, embedded = super().batch(numbers, still), []
        partition = "still" if still else self._partition
        for number, kept in zip(numbers.tolist(), torch.split(made.videos.tokens, TOKENS), strict=True):
            pixels = self._tower.pixels(make_video(self._media, partition, number).pixels)
            pictures = thumbnails_of(self._tower, pixels).tokens.to(kept)
            if not torch.allclose(pictures, kept, rtol=0, atol=0.01):  # kept as float16
                raise ScoreError(
                    f"features must be of the videos that are made here, but {partition} {number} in {self._folder} "
                    "looks otherwise: other media, or another release of the codec"
                )
            embedded.append(self._tower.model.embeddings(pixels))
        return replace(made, payload=CompositePixelPayload(**vars(made.payload), embedded=torch.cat(embedded)))

    def read(self, batch: EncodedBatch, rows: Tensor, mask: Tensor | None) -> Tensor:
        """See :class:`~score_video.rl.multiple_choice.ReaderEnvironment`."""
        there = torch.ones_like(rows, dtype=torch.bool) if mask is None else mask
        tokens = torch.zeros(*rows.shape, self.reader.config.token_width)
        tokens[there] = self._chosen(batch.payload.embedded, rows, there)
        return self.reader.read(tokens, self._place[rows % TOKENS], mask)[0]

    def _chosen(self, embedded: Tensor, rows: Tensor, there: Tensor) -> Tensor:
        """What the tower makes of each sample's tokens when it sees these and their halo alone: float32 [K, D], the
        samples one after the other.

        Args:
            embedded: what the payload has under that name.
            rows: int64 [samples, n]; a sample's are of one video.
            there: bool [samples, n], K of them True; the rest is padding.
        """
        sample = torch.arange(len(rows))[:, None].expand_as(rows)[there]
        places, video = rows[there] % TOKENS, rows[:, 0] // TOKENS
        chosen = torch.zeros(len(rows), TOKENS, dtype=torch.bool)
        chosen[sample, places] = True
        seen = widened(chosen.view(-1, COLUMNS, COLUMNS), self._halo).flatten().nonzero()[:, 0]
        frames = (video[:, None] * FRAMES + torch.arange(FRAMES)).flatten()  # of all samples
        device = embedded.device
        made = tokens_of_embedded(self._tower, embedded, seen.to(device), frames.to(device))
        return made.to("cpu", torch.float32)[torch.searchsorted(seen, sample * TOKENS + places)]
