"""Real video as background of the miniature world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from score_video.miniature.world import SPLITS, Partition, World
from score_video.video import read_frames

FRAMES = 240
SHORT_SIDE = 96


def load_footage(path: Path) -> Tensor:
    """The luminance of a video, float32 [F, H, W], 0 to 1, F up to 240 frames at equal steps, the short side 96 pixels.

    Raises VideoError for a file that cannot be read.
    """

    def fit(height: int, width: int) -> tuple[int, int]:
        scale = SHORT_SIDE / min(height, width)
        return max(SHORT_SIDE, round(height * scale)), max(SHORT_SIDE, round(width * scale))

    frames = read_frames(path, fit, num_frames=FRAMES).frames
    luma = frames.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return torch.from_numpy(luma / 255)


def make_world(split: str, partition: Partition, seed: int, footage: Tensor | None) -> World:
    """A world of any split; only one over footage gets it."""
    wants = split in SPLITS and SPLITS[split].footage
    return World(split, partition, seed, footage if wants else None)
