"""What happens in each video of the miniature world: drawn at random, before anything is painted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from score_video.miniature.vocabulary import SIZE, Split

CELLS = 4  # parked things stand in different cells of a 4 x 4 grid, so that none hides another


class Draws:
    """The random numbers of a batch of videos: each video's come from a generator of its own."""

    # uniform numbers, in the order in which they are taken; then the pixels of the flicker
    _UNIFORM = 192

    def __init__(self, key: list[int], indices: Sequence[int]) -> None:
        self.generators = [
            np.random.Generator(np.random.Philox(np.random.SeedSequence([*key, int(i)]))) for i in indices
        ]
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
class Plan:
    """What is in each of B videos of T frames, before it is painted. Positions are centres in pixels, (y, x)."""

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


def draw_plan(draws: Draws, split: Split) -> Plan:
    """Draws what happens in each video of a split."""
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

    parked = (
        draws.happens(split.parked, 8) | (torch.arange(8, device="cpu") == 4) & ~moving[:, None]
    )  # a still always has its disc
    parked_colour = (flash_colour[:, None] + 1 + draws.order_of(3)[:, :2]) % 4  # never the flashing one's
    return Plan(
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


def _progress(draws: Draws, count: int, frames: int) -> Tensor:
    """[B, count, T] from 0 to 1: things rest for up to a quarter of the video before and after they move."""
    begin = draws.uniform(count, 0, 0.25)[..., None]
    end = draws.uniform(count, 0.75, 1)[..., None]
    return ((torch.linspace(0, 1, frames, dtype=torch.float32, device="cpu") - begin) / (end - begin)).clamp(0, 1)


def _paths(draws: Draws, count: int, frames: int) -> Tensor:
    """[B, count, T, 2] straight ways of at least 8 pixels along one axis."""
    low, high = 2.5, SIZE - 2.5
    start = draws.uniform(2 * count, low, high).view(-1, count, 2)
    far = torch.where(start < SIZE / 2, high - draws.uniform(2 * count, 0, 1.5).view_as(start), low + 1.0)
    anywhere = draws.uniform(2 * count, low, high).view_as(start)
    main_axis = draws.one_of(2, count)[..., None] == torch.arange(2, device="cpu")
    end = torch.where(main_axis, far, anywhere)
    progress = _progress(draws, count, frames)[..., None]
    return start[:, :, None] + (end - start)[:, :, None] * progress


def _straight_path(draws: Draws, direction: Tensor, frames: int) -> Tensor:
    """[B, T, 2] along one axis, at least 10 pixels: direction 0 left, 1 right, 2 up, 3 down."""
    near, far = draws.uniform(1, 2.5, 6.5)[:, 0], draws.uniform(1, SIZE - 6.5, SIZE - 2.5)[:, 0]
    forwards = direction % 2 == 1
    start, end = torch.where(forwards, near, far), torch.where(forwards, far, near)
    along = start[:, None] + (end - start)[:, None] * _progress(draws, 1, frames)[:, 0]
    across = draws.uniform(1, 2.5, SIZE - 2.5).expand_as(along)
    upright = (direction >= 2)[:, None]
    return torch.stack([torch.where(upright, along, across), torch.where(upright, across, along)], 2)
