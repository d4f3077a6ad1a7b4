"""Videos with questions whose answers are known: drawn things that move, flash, wait and stand still over real scenery.

A video has 16 frames of 126 x 126 pixels. On it are

- a mover, one of a kind, or none; balls, of which some move; a flash, seen in one frame, or none; a mark, seen in two;
- a landmark that is always there, and parked look-alikes of the movers, the balls and the flashes, which never move on
  the scene (they move on the screen with the camera).

A still, which the first stage of the curriculum wants, is one photograph on which all things are parked; at most the
camera moves.

There are two sets of kinds. Policies are trained on the first; the second is for testing them, and no policy has met
it. The reader, which answers, is trained on both, so that it knows what it is asked about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from score_video.composite.drawing import draw, recode
from score_video.composite.media import Group
from score_video.composite.scenery import CAMERAS, FRAMES, SIZE, Scenery, draw_scenery
from score_video.errors import ScoreError
from score_video.rl.multiple_choice import NOT_ASKED as NOT_ASKED

PATCH = 14
COLUMNS = SIZE // PATCH
TOKENS_PER_FRAME = COLUMNS * COLUMNS
TOKENS = FRAMES * TOKENS_PER_FRAME

MOVERS = "🚗🐘🐢🦋🚀🐠🚌🐎🐇🐝🚁🦈"
BALLS = "⚽🏀🎾🏐🏈🎱"
FLASHES = "🍎🍕🍔🍄🌵🎸🍌🍩🧀🌷🥕🎺"
LANDMARKS = "🏠🌲📺🚲🪑🏆🏰🌴📷🛵🧸🎁"
MARKS = "🎈🔔"
SYMBOLS = MOVERS + BALLS + FLASHES + LANDMARKS + MARKS
FIRST_MOVER, FIRST_BALL, FIRST_FLASH = 0, 12, 18
FIRST_LANDMARK, FIRST_MARK = 30, 42
"""Of each row its first half is the first set of kinds, the rest the second."""

TASKS: Mapping[str, int] = {
    "mover": 13,  # which one moves, or none
    "direction": 4,  # left, right, up, down
    "count": 4,  # how many balls move
    "flash": 13,  # what was seen in one frame alone, or nothing
    "order": 2,  # the flash before the mark, or after it
    "landmark": 12,  # what was there all the time
    "where": 4,  # in which quarter, where the camera is still
    "cut": 2,  # whether the scene changed; over photographs
}
"""Number of answers of each question."""
TASK_NAMES = tuple(TASKS)
Partition = Literal["reader", "policy", "still", "validation", "test"]


@dataclass(frozen=True)
class Part:
    """What a partition's videos are made of.

    Attributes:
        number: sets its random numbers apart from those of the others.
        group: which footage and photographs are its scenery.
        sets: which sets of kinds, 0 or 1, its things are drawn from.
        parked: whether nothing in its videos moves or flashes, as in a still.
    """

    number: int
    group: Group
    sets: tuple[int, ...]
    parked: bool = False


PARTITIONS: Mapping[Partition, Part] = {
    "reader": Part(0, "train", (0, 1)),
    "policy": Part(1, "train", (0,)),
    "still": Part(4, "train", (0,), parked=True),
    "validation": Part(2, "validation", (0,)),
    "test": Part(3, "test", (1,)),
}


@dataclass(frozen=True)
class Video:
    """A video, and what is known of it.

    Attributes:
        pixels: uint8 [FRAMES, SIZE, SIZE, 3].
        shown: uint8 [TOKENS, symbols], pixels of each thing in each token's patch.
        live: uint8 [TOKENS], pixels of things that move or flash.
        answers: int64 [tasks], NOT_ASKED where the question makes no sense.
        source: names of the media behind it.
    """

    pixels: npt.NDArray[np.uint8]
    shown: npt.NDArray[np.uint8]
    live: npt.NDArray[np.uint8]
    answers: npt.NDArray[np.int64]
    source: str


def check_partition(partition: str) -> None:
    """Raises ScoreError for a partition that there is not."""
    if partition not in PARTITIONS:
        raise ScoreError(f"partition must be one of {', '.join(PARTITIONS)}, got {partition!r}")


def make_video(folder: Path, partition: Partition, number: int) -> Video:
    """A video by its number: the same from the same media, and the same release of the codec.

    Args:
        folder: path of the folder of media (:mod:`score_video.composite.media`).
        partition: a name in PARTITIONS.
        number: the video's, from 0.

    Raises:
        ScoreError: a medium is missing, or there is no such partition.
    """
    check_partition(partition)
    part = PARTITIONS[partition]
    generator = np.random.default_rng([part.number, number])
    scenery = draw_scenery(folder, part.group, generator, one_photograph=part.parked)
    stage = _Stage(scenery, int(generator.choice(part.sets)), generator)
    if part.parked:
        stage.set_up_parked()
    else:
        stage.set_up()
    pixels, owner, alive = _paint(folder, stage)
    pixels = recode(pixels, int(generator.integers(20, 29)))
    patches = owner.reshape(FRAMES, COLUMNS, PATCH, COLUMNS, PATCH).swapaxes(2, 3).reshape(TOKENS, PATCH * PATCH)
    shown = np.stack([(patches == 1 + thing).sum(1) for thing in range(len(SYMBOLS))], 1).astype(np.uint8)
    lively = alive.reshape(FRAMES, COLUMNS, PATCH, COLUMNS, PATCH).swapaxes(2, 3).reshape(TOKENS, PATCH * PATCH)
    return Video(pixels, shown, lively.sum(1).astype(np.uint8), stage.answers, scenery.source)


@dataclass(frozen=True)
class _Thing:
    """A thing on a video; ``path`` float64 [FRAMES, 2] is its centre, y and x, ``sizes`` [FRAMES] its longer side."""

    number: int
    path: npt.NDArray[np.float64]
    sizes: npt.NDArray[np.float64]
    seen: npt.NDArray[np.bool_]
    live: bool
    angle: float
    sway: float
    mirrored: bool
    light: float


@dataclass
class _Stage:
    """Places the things of one video, and notes the answers."""

    scenery: Scenery
    kinds: int
    generator: np.random.Generator
    things: list[_Thing] = field(default_factory=list)
    taken: list[tuple[npt.NDArray[np.float64], float]] = field(default_factory=list)
    answers: npt.NDArray[np.int64] = field(default_factory=lambda: np.full(len(TASKS), NOT_ASKED))

    def set_up(self) -> None:
        self._landmark()
        self._mover()
        self._balls()
        self._flash_and_mark()
        if self.scenery.camera is not None:
            self._answer("cut", int(self.scenery.cut is not None))

    def set_up_parked(self) -> None:
        """Asks what a still can answer."""
        self._landmark()
        for first in (FIRST_MOVER, FIRST_FLASH):
            if self._chance(0.65):
                self._park(first + self._kind(6), 22, 28)
        for ball in range(3):
            if self._chance(0.35):
                self._park(FIRST_BALL + 3 * self.kinds + ball, 18, 24)

    def _landmark(self) -> None:
        kind = self._kind(6)
        centre = self._park(FIRST_LANDMARK + kind, 22, 28)
        self._answer("landmark", kind)
        if self.scenery.camera in (None, CAMERAS.index("still")):
            self._answer("where", 2 * int(centre[0] > SIZE / 2) + int(centre[1] > SIZE / 2))

    def _mover(self) -> None:
        kind = self._kind(6)
        if self._chance(0.65):
            self._park(FIRST_MOVER + self._another(kind, 6), 22, 28)
        if self._chance(0.08):
            self._answer("mover", 12)
            return
        direction = int(self.generator.integers(4))
        self._answer("mover", kind)
        self._answer("direction", direction)
        self._move(FIRST_MOVER + kind, float(self.generator.integers(23, 29)), direction)

    def _balls(self) -> None:
        moving = 0
        for ball in range(3):
            number, chance = FIRST_BALL + 3 * self.kinds + ball, self.generator.random()
            if chance < 0.45:
                self._move(number, float(self.generator.integers(18, 24)), None)
                moving += 1
            elif chance < 0.70:
                self._park(number, 18, 24)
        self._answer("count", moving)

    def _flash_and_mark(self) -> None:
        kind = self._kind(6)
        if self._chance(0.65):
            self._park(FIRST_FLASH + self._another(kind, 6), 22, 28)
        frames = self.generator.permutation(np.arange(1, FRAMES - 2))
        flash = int(frames[0])
        flashes = not self._chance(0.10)
        self._answer("flash", kind if flashes else 12)
        if flashes:
            self._appear(FIRST_FLASH + kind, 24, 30, [flash])
        if self._chance(0.65):
            mark = next(int(frame) for frame in frames[1:] if frame > flash + 1 or frame + 1 < flash)
            self._appear(FIRST_MARK + self.kinds, 23, 29, [mark, mark + 1])
            if flashes:
                self._answer("order", int(mark < flash))

    def _answer(self, task: str, answer: int) -> None:
        self.answers[TASK_NAMES.index(task)] = answer

    def _chance(self, share: float) -> bool:
        return bool(self.generator.random() < share)

    def _kind(self, count: int) -> int:
        """One of this video's set of kinds, as a number among those of both sets."""
        return count * self.kinds + int(self.generator.integers(count))

    def _another(self, kind: int, count: int) -> int:
        """Another of the same set."""
        return count * self.kinds + (kind + 1 + int(self.generator.integers(count - 1))) % count

    def _spot(self, size: float) -> npt.NDArray[np.float64]:
        """A centre where nothing is yet, or where there is little room, anywhere."""
        centre = np.full(2, SIZE / 2)
        for _ in range(200):
            centre = self.generator.uniform(size / 2 + 1, SIZE - size / 2 - 1, 2)
            if all(np.abs(centre - other).max() > (size + its) / 2 - 2 for other, its in self.taken):
                break
        self.taken.append((centre, size))
        return centre

    def _add(
        self, number: int, path: npt.NDArray[np.float64], sizes: npt.NDArray[np.float64], frames: list[int], live: bool
    ) -> None:
        generator = self.generator
        seen = np.zeros(FRAMES, bool)
        seen[frames] = True
        sway = 6.0 if live and len(frames) > 2 else 0.0
        angle, mirrored, light = generator.uniform(-12, 12), self._chance(0.5), generator.uniform(0.85, 1.15)
        self.things.append(_Thing(number, path, sizes, seen, live, angle, sway, mirrored, light))

    def _park(self, number: int, smallest: int, largest: int) -> npt.NDArray[np.float64]:
        """Stands on the scene, and so moves on the screen with the camera. Its centre in the first frame."""
        size = float(self.generator.integers(smallest, largest))
        centre, scale = self._spot(size), self.scenery.scale
        path = SIZE / 2 + (centre - SIZE / 2) * scale[:, None] + self.scenery.shift
        self._add(number, path, size * scale, list(range(FRAMES)), live=False)
        return centre

    def _appear(self, number: int, smallest: int, largest: int, frames: list[int]) -> None:
        size = float(self.generator.integers(smallest, largest))
        self._add(number, np.repeat(self._spot(size)[None], FRAMES, 0), np.full(FRAMES, size), frames, live=True)

    def _move(self, number: int, size: float, direction: int | None) -> None:
        """Moves across the screen: to the left, right, up or down, with a little of the other; None: anywhere."""
        travel = self.generator.uniform(60, 85)
        if direction is None:
            angle = self.generator.uniform(0, 2 * np.pi)
            along = np.array([np.sin(angle), np.cos(angle)])
        else:
            along = np.array([(0, -1), (0, 1), (-1, 0), (1, 0)][direction], float)
            along = along + along[::-1] * self.generator.uniform(-0.15, 0.15)
        span = np.abs(along) * travel
        low, high = span / 2 + size / 2, SIZE - span / 2 - size / 2
        drawn = self.generator.uniform(np.minimum(low, high), np.maximum(low, high))
        centre = np.where(low < high, drawn, SIZE / 2)
        path = centre + np.linspace(-0.5, 0.5, FRAMES)[:, None] * along * travel
        self._add(number, path, np.full(FRAMES, size), list(range(FRAMES)), live=True)


def _paint(folder: Path, stage: _Stage) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """uint8 [FRAMES, SIZE, SIZE, 3]; whose pixel each is, 0 the scene's, 1 + its number a thing's; and whether of a
    live one."""
    pixels = stage.scenery.frames.copy()
    owner = np.zeros((FRAMES, SIZE, SIZE), np.uint8)
    alive = np.zeros((FRAMES, SIZE, SIZE), bool)
    for thing in stage.things:
        for t in np.flatnonzero(thing.seen):
            angle = thing.angle + thing.sway * np.sin(t * 1.3)
            symbol = SYMBOLS[thing.number]
            sprite = draw(folder, symbol, thing.sizes[t], angle, thing.mirrored, thing.light)
            top, left = np.round(thing.path[t] - np.array(sprite.shape[:2]) / 2).astype(int)
            rows = slice(max(top, 0), min(top + sprite.shape[0], SIZE))
            columns = slice(max(left, 0), min(left + sprite.shape[1], SIZE))
            if rows.start >= rows.stop or columns.start >= columns.stop:
                continue  # the camera has left it behind
            part = sprite[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
            opacity = part[..., 3:]
            pixels[t, rows, columns] = pixels[t, rows, columns] * (1 - opacity) + part[..., :3] * opacity
            solid = opacity[..., 0] > 0.5
            owner[t, rows, columns][solid] = 1 + thing.number
            alive[t, rows, columns][solid] = thing.live
    return (np.clip(pixels, 0, 1) * 255).astype(np.uint8), owner, alive
