"""A choice that a test has made, as something that chooses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from score_video.before_tower import Gate
from score_video.packed import PackedVideos, Selection


@dataclass
class Given:
    """Keeps given tokens of one video."""

    places: Sequence[int]

    def select(self, videos: PackedVideos, question: Any = None, counts: Any = None) -> Selection:
        return Selection(torch.tensor(self.places), torch.tensor([len(self.places)], dtype=torch.int32))


def given_gate(places: Sequence[int], halo: int) -> Gate:
    """Lets these tokens through."""
    return Gate(Given(places), halo, "given")
