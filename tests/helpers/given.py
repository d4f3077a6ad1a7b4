"""Choices that a test has made: as something that chooses, and as samples of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from score_video.before_tower import Gate
from score_video.packed import PackedVideos, Selection
from score_video.rl.environment import EncodedBatch


@dataclass
class Given:
    """Keeps given tokens of one video."""

    places: Sequence[int]

    def select(self, videos: PackedVideos, question: Any = None, counts: Any = None) -> Selection:
        return Selection(torch.tensor(self.places), torch.tensor([len(self.places)], dtype=torch.int32))


def given_gate(places: Sequence[int], halo: int) -> Gate:
    """Lets these tokens through."""
    return Gate(Given(places), halo, "given")


def given_samples(batch: EncodedBatch, samples: Sequence[Sequence[Sequence[int]]]) -> Selection:
    """samples: for each sample and video the tokens kept, counted from the video's first."""
    starts = batch.videos.cu_seqlens.tolist()
    index = [starts[b] + token for sample in samples for b, kept in enumerate(sample) for token in kept]
    keep = [[len(kept) for kept in sample] for sample in samples]
    return Selection(torch.tensor(index, dtype=torch.int64), torch.tensor(keep, dtype=torch.int32))
