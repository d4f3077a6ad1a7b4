"""A procedural video question-answering world: small enough to learn in minutes, built so that each idea of SCORE can
show its worth or fail.

A video is 24 x 24 pixels and 16 frames (64 in the split ``long``) over a drifting grey texture with a tint. In it:

====================  ================================================================================================
squares               move across the frame, at most one of each of four colours; the task ``count`` asks how many
white disc            moves in one of four directions: ``direction``
coloured diamond      is there for a single frame: ``flash`` asks for its colour
white cross           is there for two frames: ``order`` asks whether it came before the diamond
glyph                 one of four small black-and-white marks that never moves: ``glyph``
tint                  one of four hues of the background: ``tint``
parked look-alikes    squares, discs, diamonds and crosses that look the same and never move
flicker               a patch of noise, new in every frame: as surprising as anything, and no question is about it
====================  ================================================================================================

Each split (:data:`SPLITS`) says how likely each of these is. Video i of a seed is the same whatever the batch, and the
partitions (train, validation, test) are different streams, so that they never share a video.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from score_video.errors import ScoreError
from score_video.miniature.painting import render
from score_video.miniature.plan import Draws, Plan, draw_plan
from score_video.miniature.vocabulary import (
    BACKGROUND,
    COLOURS,
    CROSS,
    DISC,
    FLASH,
    FLICKER,
    GLYPH,
    LIVE_THINGS,
    NUM_THINGS,
    PARKED_CROSS,
    PARKED_DIAMOND,
    PARKED_DISC,
    PARKED_SQUARE,
    PARTITIONS,
    SIZE,
    SPLITS,
    SQUARE,
    TASK_NAMES,
    TASKS,
    Partition,
    Split,
    Task,
)
from score_video.rl.multiple_choice import NOT_ASKED

__all__ = [
    "BACKGROUND",
    "COLOURS",
    "CROSS",
    "DISC",
    "FLASH",
    "FLICKER",
    "GLYPH",
    "LIVE_THINGS",
    "NOT_ASKED",
    "NUM_THINGS",
    "PARKED_CROSS",
    "PARKED_DIAMOND",
    "PARKED_DISC",
    "PARKED_SQUARE",
    "PARTITIONS",
    "SIZE",
    "SPLITS",
    "SQUARE",
    "TASKS",
    "TASK_NAMES",
    "Partition",
    "Split",
    "Task",
    "Videos",
    "World",
    "thing_counts",
]


@dataclass(frozen=True)
class Videos:
    """B videos of one split with everything that is known about them.

    Attributes:
        pixels: float32 [B, T, 3, 24, 24], 0 to 1.
        things: uint8 [B, T, 24, 24], what each pixel shows.
        answers: int64 [B, number of tasks], index into the task's answers; ``NOT_ASKED`` where it is not asked.
        hints: int64 [B, 6], what only the reader's training uses: whether the square of each colour moves (0, 1), and
            the eighth of the video in which the diamond and the cross flash (``NOT_ASKED`` where they do not).
        activity: float32 [B], how many things move or flash.
    """

    pixels: Tensor
    things: Tensor
    answers: Tensor
    hints: Tensor
    activity: Tensor


class World:
    """Makes videos of one split.

    Args:
        split: a name in :data:`SPLITS`.
        partition: "train", "validation" or "test"; different videos for the same seed.
        seed: any integer from 0.
        footage: luminance of real video, float32 [F, H, W], 0 to 1, at least 64 pixels each side and as many frames as
            the split's videos have; needed by the split ``footage``, refused by the others.

    Raises:
        ValueError: for names that are none, and for footage missing, not wanted or too small.
    """

    def __init__(self, split: str, partition: Partition, seed: int = 0, footage: Tensor | None = None) -> None:
        if split not in SPLITS:
            raise ScoreError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        if partition not in PARTITIONS:
            raise ScoreError(f"partition must be one of {', '.join(PARTITIONS)}, got {partition!r}")
        if seed < 0:
            raise ScoreError(f"seed must be 0 or more, got {seed}")
        self.split = SPLITS[split]
        if self.split.footage != (footage is not None):
            raise ScoreError(
                f"the split {split} is made over real video: give footage (a clip)"
                if self.split.footage
                else f"only a split over real video takes footage, got some for {split}"
            )
        least = (self.split.frames, 64, 64)
        if footage is not None and (
            footage.ndim != 3 or any(size < wanted for size, wanted in zip(footage.shape, least, strict=True))
        ):
            raise ScoreError(
                f"footage must be [frames, height, width] of at least {self.split.frames} x 64 x 64, "
                f"got {list(footage.shape)}"
            )
        self._key = [seed, PARTITIONS.index(partition), list(SPLITS).index(split)]
        self._footage = footage

    def videos(self, indices: Sequence[int]) -> Videos:
        """The videos of those numbers; each is the same whatever else is asked for with it."""
        draws = Draws(self._key, indices)
        plan = draw_plan(draws, self.split)
        pixels, things = render(draws, plan, self.split, self._footage)
        activity = plan.squares.sum(1) + plan.disc.int() + plan.flash.int() + plan.cross.int()
        return Videos(pixels, things, _answers(plan), _hints(plan, self.split.frames), activity.float())


def _answers(plan: Plan) -> Tensor:
    """int64 [B, tasks]."""
    quadrant = 2 * (plan.parked_place[:, 4, 0] >= SIZE / 2).long() + (plan.parked_place[:, 4, 1] >= SIZE / 2).long()
    answers = {
        "direction": torch.where(plan.disc, plan.disc_direction, 4),
        "flash": torch.where(plan.flash, plan.flash_colour, 4),
        "count": plan.squares.sum(1),
        "order": torch.where(plan.flash & plan.cross, (plan.cross_frame < plan.flash_frame).long(), NOT_ASKED),
        "glyph": plan.glyph,
        "tint": plan.tint,
        "quadrant": quadrant,
    }
    table = torch.stack([answers[name] for name in TASK_NAMES], 1)
    still = torch.tensor([name in ("glyph", "tint", "quadrant") for name in TASK_NAMES], device="cpu")
    moving = torch.tensor([name != "quadrant" for name in TASK_NAMES], device="cpu")
    return table.masked_fill(~torch.where(plan.moving[:, None], moving, still), NOT_ASKED)


def _hints(plan: Plan, frames: int) -> Tensor:
    """int64 [B, 6]."""
    when_flash = torch.where(plan.flash, plan.flash_frame * 8 // frames, NOT_ASKED)
    when_cross = torch.where(plan.cross, plan.cross_frame * 8 // frames, NOT_ASKED)
    return torch.cat([plan.squares.long(), when_flash[:, None], when_cross[:, None]], 1)


def thing_counts(things: Tensor, patch: int) -> Tensor:
    """uint8 [B, T * tokens, NUM_THINGS]: pixels of each thing in each token's patch; things as in :class:`Videos`."""
    batch, frames, size, _ = things.shape
    rows = size // patch
    patches = things.view(batch, frames, rows, patch, rows, patch).transpose(3, 4)
    flat = patches.reshape(batch, -1, patch * patch).long()
    counts = torch.zeros(*flat.shape[:2], NUM_THINGS, dtype=torch.uint8, device=flat.device)
    return counts.scatter_add_(2, flat, torch.ones_like(flat, dtype=torch.uint8))
