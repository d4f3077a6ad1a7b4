"""The names of the miniature world: questions and answers, splits, partitions, and what a pixel can show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SIZE = 24  # pixels, each side

Partition = Literal["train", "validation", "test"]
PARTITIONS: tuple[Partition, ...] = ("train", "validation", "test")

COLOURS = ("red", "green", "blue", "yellow")


@dataclass(frozen=True)
class Task:
    """A question and the answers it can have."""

    name: str
    question: str
    answers: tuple[str, ...]


TASKS: tuple[Task, ...] = (
    Task("direction", "Which way does the white disc move?", ("left", "right", "up", "down", "nowhere")),
    Task("flash", "Which colour is the diamond that flashes for one frame?", (*COLOURS, "none")),
    Task("count", "How many squares move?", ("0", "1", "2", "3", "4")),
    Task("order", "Which flashes first, the diamond or the cross?", ("diamond", "cross")),
    Task("glyph", "Which mark is there?", ("across", "upright", "chequer", "frame")),
    Task("tint", "Which hue has the background?", ("purple", "teal", "brown", "grey")),
    Task(
        "quadrant", "In which quarter stands the white disc?", ("top left", "top right", "bottom left", "bottom right")
    ),
)
TASK_NAMES = tuple(task.name for task in TASKS)


@dataclass(frozen=True)
class Split:
    """What the videos of a split are made of; chances are of each single thing being there.

    Attributes:
        parked: chance of each parked look-alike that there could be (four squares, a disc, two diamonds, a cross).
        moving: chance of motion at all; a video without it is static and asks what a still can answer.
        extremes: chances of a video in which nearly nothing happens, and of one in which everything does.
        footage: whether the background is real video, which the user names (see ``World``).
    """

    name: str
    parked: float
    frames: int = 16
    moving: float = 1.0
    extremes: float = 0.0
    footage: bool = False


SPLITS: dict[str, Split] = {
    split.name: split
    for split in (
        Split("plain", parked=0.0),
        Split("lookalike", parked=0.65),
        Split("static", parked=0.65, moving=0.0),
        Split("density", parked=0.4, extremes=0.35),
        Split("footage", parked=0.4, footage=True),
        Split("long", parked=0.65, frames=64),
    )
}


# What a pixel shows, as an id: what the labels of tokens are made from
BACKGROUND, FLICKER, GLYPH, DISC, CROSS, FLASH = 0, 1, 2, 3, 4, 5
SQUARE = 6  # to 9, one of each colour: the moving ones
PARKED_SQUARE = 10  # to 13
PARKED_DIAMOND = 14  # to 17
PARKED_DISC, PARKED_CROSS = 18, 19
NUM_THINGS = 20
LIVE_THINGS = (DISC, CROSS, FLASH, SQUARE, SQUARE + 1, SQUARE + 2, SQUARE + 3)
"""What moves or flashes and is asked about."""
