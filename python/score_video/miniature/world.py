"""A procedural video question-answering world: small enough to learn in minutes, built so that each of SCORE's ideas can
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

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

SIZE = 24  # pixels, each side
CELLS = 4  # parked things stand in different cells of a 4 x 4 grid, so that none hides another

Partition = Literal["train", "validation", "test"]
PARTITIONS: tuple[Partition, ...] = ("train", "validation", "test")

COLOURS = ("red", "green", "blue", "yellow")
_COLOUR_RGB = torch.tensor([[0.90, 0.15, 0.15], [0.15, 0.80, 0.20], [0.20, 0.35, 1.00], [0.95, 0.85, 0.10]])
_WHITE = torch.tensor([0.97, 0.97, 0.97])
_TINT_RGB = torch.tensor([[0.46, 0.32, 0.46], [0.28, 0.46, 0.44], [0.48, 0.40, 0.26], [0.36, 0.36, 0.40]])
_GLYPHS = torch.tensor(  # 4 x 4 pixels each: bars across, bars upright, a chequer, a frame
    [
        [[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]],
        [[1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 0]],
        [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]],
        [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]],
    ],
    dtype=torch.float32,
)


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
    Task("quadrant", "In which quarter stands the white disc?", ("top left", "top right", "bottom left", "bottom right")),
)
TASK_NAMES = tuple(task.name for task in TASKS)
NOT_ASKED = -1


@dataclass(frozen=True)
class Split:
    """What the videos of a split are made of; chances are of each single thing being there.

    Attributes:
        parked: of a parked look-alike, for each that there could be (four squares, a disc, two diamonds, a cross).
        moving: of motion at all; a video without it is static and asks what a still can answer.
        extremes: of a video in which nearly nothing happens, and of one in which everything does.
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
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
        if partition not in PARTITIONS:
            raise ValueError(f"partition must be one of {', '.join(PARTITIONS)}, got {partition!r}")
        if seed < 0:
            raise ValueError(f"seed must be 0 or more, got {seed}")
        self.split = SPLITS[split]
        if self.split.footage != (footage is not None):
            raise ValueError(
                f"the split {split} is made over real video: give footage (a clip)"
                if self.split.footage
                else f"only a split over real video takes footage, got some for {split}"
            )
        if footage is not None and (footage.ndim != 3 or footage.shape[0] < self.split.frames or min(footage.shape[1:]) < 64):
            raise ValueError(
                f"footage must be [frames, height, width] of at least {self.split.frames} x 64 x 64, "
                f"got {list(footage.shape)}"
            )
        self._key = [seed, PARTITIONS.index(partition), list(SPLITS).index(split)]
        self._footage = footage

    def videos(self, indices: Sequence[int]) -> Videos:
        """The videos of those numbers; each is the same whatever else is asked for with it."""
        draws = _Draws(self._key, indices)
        return _render(draws, _plan(draws, self.split), self.split, self._footage)


class _Draws:
    """The random numbers of a batch of videos: each video's come from a generator of its own."""

    # uniform numbers, in the order in which they are taken; then the pixels of the flicker
    _UNIFORM = 192

    def __init__(self, key: list[int], indices: Sequence[int]) -> None:
        self.generators = [np.random.Generator(np.random.Philox(np.random.SeedSequence([*key, int(i)]))) for i in indices]
        self._numbers = torch.from_numpy(np.stack([g.random(self._UNIFORM, dtype=np.float32) for g in self.generators]))
        self._taken = 0

    def uniform(self, count: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        """[B, count], from ``low`` to below ``high``."""
        taken = self._numbers[:, self._taken : self._taken + count]
        self._taken += count
        assert taken.shape[1] == count, "_UNIFORM is too small"
        return low + (high - low) * taken

    def happens(self, chance: Tensor | float, count: int = 1) -> Tensor:
        """bool [B, count]."""
        return self.uniform(count) < chance

    def one_of(self, choices: int, count: int = 1) -> Tensor:
        """int64 [B, count], 0 to below ``choices``."""
        return (self.uniform(count) * choices).long().clamp_(max=choices - 1)

    def order_of(self, choices: int) -> Tensor:
        """int64 [B, choices], a permutation."""
        return self.uniform(choices).argsort(1)

    def pixels(self, *shape: int) -> Tensor:
        """float32 [B, *shape]."""
        return torch.from_numpy(np.stack([g.random(shape, dtype=np.float32) for g in self.generators]))


@dataclass(frozen=True)
class _Plan:
    """What is in each video, before it is painted. Positions are centres in pixels, (y, x)."""

    tint: Tensor  # [B]
    glyph: Tensor  # [B]
    glyph_corner: Tensor  # int64 [B, 2]
    squares: Tensor  # bool [B, 4], which colours move
    square_path: Tensor  # [B, 4, T, 2]
    disc: Tensor  # bool [B]
    disc_direction: Tensor  # [B]
    disc_path: Tensor  # [B, T, 2]
    flash: Tensor  # bool [B]
    flash_colour: Tensor  # [B]
    flash_place: Tensor  # [B, 2]
    flash_frame: Tensor  # [B]
    cross: Tensor  # bool [B]
    cross_place: Tensor  # [B, 2]
    cross_frame: Tensor  # [B]
    flicker: Tensor  # bool [B]
    flicker_place: Tensor  # [B, 2]
    parked: Tensor  # bool [B, 8]: four squares, disc, two diamonds, cross
    parked_place: Tensor  # [B, 8, 2]
    parked_colour: Tensor  # [B, 2], of the diamonds
    moving: Tensor  # bool [B], whether anything may move
    liveliness: Tensor  # [B], -1 nearly nothing happens, 1 everything, 0 in between


def _plan(draws: _Draws, split: Split) -> _Plan:
    frames = split.frames
    moving = draws.happens(split.moving)[:, 0]
    extreme = draws.uniform(1)[:, 0]
    quiet, busy = extreme < split.extremes, extreme > 1 - split.extremes

    def is_there(chance: float, count: int = 1) -> Tensor:
        """Of a thing that moves or flashes."""
        happens = draws.happens(chance, count)
        return (happens | busy[:, None]) & ~quiet[:, None] & moving[:, None]

    how_many = torch.where(busy, 4, torch.where(quiet | ~moving, 0, draws.one_of(5)[:, 0]))
    squares = draws.order_of(4).argsort(1) < how_many[:, None]
    disc, flash, cross = is_there(0.8)[:, 0], is_there(0.8)[:, 0], is_there(0.85)[:, 0]
    flash_colour = draws.one_of(4)[:, 0]
    # the cross flashes at least two frames before the diamond or two after its second frame
    flash_frame = 1 + draws.one_of(frames - 2)[:, 0]
    shift = 3 + draws.one_of(frames - 6)[:, 0]
    cross_frame = 1 + (flash_frame - 1 + shift) % (frames - 3)
    too_near = (cross_frame - flash_frame).abs() < 3
    cross_frame = torch.where(too_near, torch.where(flash_frame > frames // 2, 1, frames - 3), cross_frame)

    cells = draws.order_of(CELLS * CELLS)
    side = SIZE / CELLS
    jitter = draws.uniform(2 * CELLS * CELLS, -1, 1).view(-1, CELLS * CELLS, 2)
    places = torch.stack([cells // CELLS, cells % CELLS], 2) * side + side / 2 + jitter  # [B, 16, 2]

    parked = draws.happens(split.parked, 8) | (torch.arange(8) == 4) & ~moving[:, None]  # a still always has its disc
    parked_colour = (flash_colour[:, None] + 1 + draws.order_of(3)[:, :2]) % 4  # never the flashing one's
    return _Plan(
        tint=draws.one_of(4)[:, 0],
        glyph=draws.one_of(4)[:, 0],
        glyph_corner=(places[:, 8] - 2).round().long(),
        squares=squares,
        square_path=_paths(draws, 4, frames),
        disc=disc,
        disc_direction=(direction := draws.one_of(4)[:, 0]),
        disc_path=_straight_path(draws, direction, frames),
        flash=flash,
        flash_colour=flash_colour,
        flash_place=draws.uniform(2, 3, SIZE - 3),
        flash_frame=flash_frame,
        cross=cross,
        cross_place=draws.uniform(2, 3, SIZE - 3),
        cross_frame=cross_frame,
        flicker=is_there(0.6)[:, 0],
        flicker_place=places[:, 9],
        parked=parked,
        parked_place=places[:, :8],
        parked_colour=parked_colour,
        moving=moving,
        liveliness=busy.float() - quiet.float(),
    )


def _progress(draws: _Draws, count: int, frames: int) -> Tensor:
    """[B, count, T] from 0 to 1: things rest for up to a quarter of the video before and after they move."""
    begin = draws.uniform(count, 0, 0.25)[..., None]
    end = draws.uniform(count, 0.75, 1)[..., None]
    return ((torch.linspace(0, 1, frames) - begin) / (end - begin)).clamp(0, 1)


def _paths(draws: _Draws, count: int, frames: int) -> Tensor:
    """[B, count, T, 2] straight ways of at least 10 pixels along one axis."""
    low, high = 2.5, SIZE - 2.5
    start = draws.uniform(2 * count, low, high).view(-1, count, 2)
    far = torch.where(start < SIZE / 2, high - draws.uniform(2 * count, 0, 1.5).view_as(start), low + 1.0)
    anywhere = draws.uniform(2 * count, low, high).view_as(start)
    main_axis = draws.one_of(2, count)[..., None] == torch.arange(2)
    end = torch.where(main_axis, far, anywhere)
    progress = _progress(draws, count, frames)[..., None]
    return start[:, :, None] + (end - start)[:, :, None] * progress


def _straight_path(draws: _Draws, direction: Tensor, frames: int) -> Tensor:
    """[B, T, 2] along one axis, at least 10 pixels: direction 0 left, 1 right, 2 up, 3 down."""
    near, far = draws.uniform(1, 2.5, 6.5)[:, 0], draws.uniform(1, SIZE - 6.5, SIZE - 2.5)[:, 0]
    forwards = direction % 2 == 1
    start, end = torch.where(forwards, near, far), torch.where(forwards, far, near)
    along = start[:, None] + (end - start)[:, None] * _progress(draws, 1, frames)[:, 0]
    across = draws.uniform(1, 2.5, SIZE - 2.5).expand_as(along)
    upright = (direction >= 2)[:, None]
    return torch.stack([torch.where(upright, along, across), torch.where(upright, across, along)], 2)


def _render(draws: _Draws, plan: _Plan, split: Split, footage: Tensor | None) -> Videos:
    batch, frames = len(plan.tint), split.frames
    luma = _texture(draws, plan, frames) if footage is None else _crops(draws, footage, frames)
    pixels = _TINT_RGB[plan.tint][:, None, :, None, None] + luma[:, :, None]  # [B, T, 3, S, S]
    things = torch.zeros(batch, frames, SIZE, SIZE, dtype=torch.uint8)
    paint = _Painter(pixels, things)

    for number in range(8):  # parked: there for the whole video
        place, there = plan.parked_place[:, number, None], plan.parked[:, number, None]
        if number < 4:
            paint(_square(place), there, _COLOUR_RGB[number], PARKED_SQUARE + number)
        elif number == 4:
            paint(_disc(place), there, _WHITE, PARKED_DISC)
        elif number < 7:
            colour = plan.parked_colour[:, number - 5]
            paint(_diamond(place), there, _COLOUR_RGB[colour], PARKED_DIAMOND + colour)
            paint(_diamond(place, 1.1), there, _WHITE, PARKED_DIAMOND + colour)
        else:
            paint(_cross(place), there, _WHITE, PARKED_CROSS)
    noise = draws.pixels(frames, 1, SIZE, SIZE).round().expand(-1, -1, 3, -1, -1)
    paint.with_picture(_box(plan.flicker_place[:, None], 3.0), plan.flicker[:, None], noise, FLICKER)
    for colour in range(4):
        paint(_square(plan.square_path[:, colour]), plan.squares[:, colour, None], _COLOUR_RGB[colour], SQUARE + colour)
    paint(_disc(plan.disc_path), plan.disc[:, None], _WHITE, DISC)
    _paint_glyphs(pixels, things, plan)
    at = torch.arange(frames)
    during = (at >= plan.cross_frame[:, None]) & (at <= plan.cross_frame[:, None] + 1)
    paint(_cross(plan.cross_place[:, None]), plan.cross[:, None] & during, _WHITE, CROSS)
    during = at == plan.flash_frame[:, None]
    during &= plan.flash[:, None]
    paint(_diamond(plan.flash_place[:, None]), during, _COLOUR_RGB[plan.flash_colour], FLASH)
    paint(_diamond(plan.flash_place[:, None], 1.1), during, _WHITE, FLASH)
    activity = plan.squares.sum(1) + plan.disc.int() + plan.flash.int() + plan.cross.int()
    return Videos(pixels.clamp_(0, 1), things, _answers(plan), _hints(plan, frames), activity.float())


def _answers(plan: _Plan) -> Tensor:
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
    still = torch.tensor([name in ("glyph", "tint", "quadrant") for name in TASK_NAMES])
    moving = torch.tensor([name != "quadrant" for name in TASK_NAMES])
    return table.masked_fill(~torch.where(plan.moving[:, None], moving, still), NOT_ASKED)


def _hints(plan: _Plan, frames: int) -> Tensor:
    """int64 [B, 6]."""
    when_flash = torch.where(plan.flash, plan.flash_frame * 8 // frames, NOT_ASKED)
    when_cross = torch.where(plan.cross, plan.cross_frame * 8 // frames, NOT_ASKED)
    return torch.cat([plan.squares.long(), when_flash[:, None], when_cross[:, None]], 1)


_Y = torch.arange(SIZE).float()[:, None] + 0.5
_X = torch.arange(SIZE).float()[None, :] + 0.5


def _offsets(place: Tensor) -> tuple[Tensor, Tensor]:
    """Distances |dy|, |dx| of every pixel to centres [B, T or 1, 2] -> [B, T or 1, S, 1], [B, T or 1, 1, S]."""
    return (_Y - place[..., 0, None, None]).abs(), (_X - place[..., 1, None, None]).abs()


def _box(place: Tensor, half: float) -> Tensor:
    dy, dx = _offsets(place)
    return (dy <= half) & (dx <= half)


def _square(place: Tensor) -> Tensor:
    return _box(place, 2.0)


def _disc(place: Tensor) -> Tensor:
    dy, dx = _offsets(place)
    return dy.square() + dx.square() <= 2.3**2


def _diamond(place: Tensor, reach: float = 3.1) -> Tensor:
    dy, dx = _offsets(place)
    return dy + dx <= reach


def _cross(place: Tensor) -> Tensor:
    dy, dx = _offsets(place)
    return ((dy <= 0.6) & (dx <= 2.6)) | ((dx <= 0.6) & (dy <= 2.6))


class _Painter:
    """Paints one thing over what is there, in the videos and frames in which it is there."""

    def __init__(self, pixels: Tensor, things: Tensor) -> None:
        self.pixels, self.things = pixels, things

    def __call__(self, shape: Tensor, there: Tensor, colour: Tensor, thing: Tensor | int) -> None:
        """shape bool [B, T or 1, S, S]; there bool [B, T or 1]; colour [3] or [B, 3]; thing a number or [B]."""
        self.with_picture(shape, there, colour.expand(len(self.pixels), 3)[:, None, :, None, None], thing)

    def with_picture(self, shape: Tensor, there: Tensor, picture: Tensor, thing: Tensor | int) -> None:
        """As above; picture broadcasts to [B, T, 3, S, S]."""
        mask = (shape & there[..., None, None]).expand(self.things.shape)
        torch.where(mask[:, :, None], picture, self.pixels, out=self.pixels)
        number = torch.as_tensor(thing, dtype=torch.uint8).expand(len(self.things))
        torch.where(mask, number[:, None, None, None], self.things, out=self.things)


def _paint_glyphs(pixels: Tensor, things: Tensor, plan: _Plan) -> None:
    corner = plan.glyph_corner.clamp(0, SIZE - 4)
    for video in range(len(pixels)):  # a copy of 16 pixels each
        y, x = int(corner[video, 0]), int(corner[video, 1])
        pixels[video, :, :, y : y + 4, x : x + 4] = _GLYPHS[plan.glyph[video]]
        things[video, :, y : y + 4, x : x + 4] = GLYPH


def _texture(draws: _Draws, plan: _Plan, frames: int) -> Tensor:
    """Luminance to add, [B, T, S, S]: four gratings of random direction, wavelength and drift. Stills stand still."""
    waves = 4
    angle = draws.uniform(waves, 0, 2 * math.pi)
    frequency = 2 * math.pi / draws.uniform(waves, 5, 24)
    phase = draws.uniform(waves, 0, 2 * math.pi)
    drift = draws.uniform(waves, -0.6, 0.6)  # radians a frame
    stands_still = ~plan.moving | (plan.liveliness < 0) | draws.happens(0.25)[:, 0]
    drift = drift * (16 / frames) * ~stands_still[:, None]
    amplitude = draws.uniform(waves, 0.0, 0.07)
    along = (frequency * angle.sin())[..., None, None] * _Y + (frequency * angle.cos())[..., None, None] * _X
    along = along + phase[..., None, None]  # [B, waves, S, S]
    moved = drift[:, :, None] * torch.arange(frames)  # [B, waves, T]
    # sin(a + b) by its parts: T x S x S products instead of as many sines
    weight = torch.stack([amplitude[..., None] * moved.cos(), amplitude[..., None] * moved.sin()], 1)
    basis = torch.stack([along.sin(), along.cos()], 1)  # [B, 2, waves, S, S]
    return torch.einsum("bcwt,bcwyx->btyx", weight, basis)


def _crops(draws: _Draws, footage: Tensor, frames: int) -> Tensor:
    """Luminance to add, [B, T, S, S]: crops of real video, scaled down to a pixel in 2 to 4, evened in contrast."""
    count, height, width = footage.shape
    longest = min(height, width) // SIZE
    scale = 1 + (draws.uniform(1)[:, 0] * min(longest, 4)).long()
    step = 1 + draws.one_of(max(1, (count - 1) // (frames - 1)))[:, 0].clamp(max=3)
    y, x, t = draws.uniform(3).unbind(1)
    crops = []
    for video in range(len(scale)):
        side, stride = int(scale[video]) * SIZE, int(step[video])
        first = int(t[video] * (count - (frames - 1) * stride))
        top, left = int(y[video] * (height - side + 1)), int(x[video] * (width - side + 1))
        clip = footage[first : first + (frames - 1) * stride + 1 : stride, top : top + side, left : left + side]
        crops.append(torch.nn.functional.avg_pool2d(clip, int(scale[video])))
    luma = torch.stack(crops)
    luma = luma - luma.mean((1, 2, 3), keepdim=True)
    return luma * (0.1 / luma.std((1, 2, 3), keepdim=True).clamp(min=0.02))


def thing_counts(things: Tensor, patch: int) -> Tensor:
    """uint8 [B, T * tokens, NUM_THINGS]: pixels of each thing in each token's patch; things as in :class:`Videos`."""
    batch, _, size, _ = things.shape
    rows = size // patch
    patches = things.unflatten(3, (rows, patch)).unflatten(2, (rows, patch)).transpose(3, 4)
    flat = patches.reshape(batch, -1, patch * patch).long()
    counts = torch.zeros(*flat.shape[:2], NUM_THINGS, dtype=torch.uint8)
    return counts.scatter_add_(2, flat, torch.ones(flat.shape, dtype=torch.uint8))
