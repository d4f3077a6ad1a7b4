"""Paints the videos of the miniature world: a background and on it what the plan says, with a record of it."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from score_video.miniature.plan import Draws, Plan
from score_video.miniature.vocabulary import (
    CROSS,
    DISC,
    FLASH,
    FLICKER,
    GLYPH,
    PARKED_CROSS,
    PARKED_DIAMOND,
    PARKED_DISC,
    PARKED_SQUARE,
    SIZE,
    SQUARE,
    Split,
)

# float32 on the CPU, as everything here is, whatever torch's defaults are when this is imported
_float32 = partial(torch.tensor, dtype=torch.float32, device="cpu")
_COLOUR_RGB = _float32([[0.90, 0.15, 0.15], [0.15, 0.80, 0.20], [0.20, 0.35, 1.00], [0.95, 0.85, 0.10]])
_WHITE = _float32([0.97, 0.97, 0.97])
_TINT_RGB = _float32([[0.46, 0.32, 0.46], [0.28, 0.46, 0.44], [0.48, 0.40, 0.26], [0.36, 0.36, 0.40]])
_GLYPHS = _float32(  # 4 x 4 pixels each: bars across, bars upright, a chequer, a frame
    [
        [[1, 1, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]],
        [[1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 0]],
        [[1, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]],
        [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 0, 1], [1, 1, 1, 1]],
    ],
)


def render(draws: Draws, plan: Plan, split: Split, footage: Tensor | None) -> tuple[Tensor, Tensor]:
    """Paints B videos: a background, then the parked things, what flickers, moves, is always there, and what flashes.

    Args:
        draws: what the background's numbers are taken from.
        plan: the things that each video shows.
        split: the kind of video, which says how many frames it has.
        footage: luminance of real video for the background, float32 [F, H, W]; None: gratings.

    Returns:
        pixels float32 [B, T, 3, 24, 24], 0 to 1; things uint8 [B, T, 24, 24], what each pixel shows.
    """
    batch, frames = len(plan.tint), split.frames
    luma = _texture(draws, plan, frames) if footage is None else _crops(draws, footage, frames)
    pixels = _TINT_RGB[plan.tint][:, None, :, None, None] + luma[:, :, None]  # [B, T, 3, S, S]
    things = torch.zeros(batch, frames, SIZE, SIZE, dtype=torch.uint8, device="cpu")
    paint = _Painter(pixels, things)

    for number in range(8):  # parked: there for the whole video
        place, there = plan.parked_place[:, number, None], plan.parked[:, number, None]
        if number < 4:
            paint(_square(place), there, _COLOUR_RGB[number], PARKED_SQUARE + number)
        elif number == 4:
            paint(_disc(place), there, _WHITE, PARKED_DISC)
        elif number < 7:
            parked = plan.parked_colour[:, number - 5]
            paint(_diamond(place), there, _COLOUR_RGB[parked], PARKED_DIAMOND + parked)
            paint(_diamond(place, 1.1), there, _WHITE, PARKED_DIAMOND + parked)
        else:
            paint(_cross(place), there, _WHITE, PARKED_CROSS)
    noise = draws.pixels(frames, 1, SIZE, SIZE).round().expand(-1, -1, 3, -1, -1)
    paint.with_picture(_box(plan.flicker_place[:, None], 3.0), plan.flicker[:, None], noise, FLICKER)
    for colour in range(4):
        paint(_square(plan.square_path[:, colour]), plan.squares[:, colour, None], _COLOUR_RGB[colour], SQUARE + colour)
    paint(_disc(plan.disc_path), plan.disc[:, None], _WHITE, DISC)
    _paint_glyphs(pixels, things, plan)
    at = torch.arange(frames, device="cpu")
    during = (at >= plan.cross_frame[:, None]) & (at <= plan.cross_frame[:, None] + 1)
    paint(_cross(plan.cross_place[:, None]), plan.cross[:, None] & during, _WHITE, CROSS)
    during = at == plan.flash_frame[:, None]
    during &= plan.flash[:, None]
    paint(_diamond(plan.flash_place[:, None]), during, _COLOUR_RGB[plan.flash_colour], FLASH)
    paint(_diamond(plan.flash_place[:, None], 1.1), during, _WHITE, FLASH)
    return pixels.clamp_(0, 1), things


_Y = torch.arange(SIZE, device="cpu").float()[:, None] + 0.5
_X = torch.arange(SIZE, device="cpu").float()[None, :] + 0.5


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
        number = torch.as_tensor(thing, dtype=torch.uint8, device="cpu").expand(len(self.things))
        torch.where(mask, number[:, None, None, None], self.things, out=self.things)


def _paint_glyphs(pixels: Tensor, things: Tensor, plan: Plan) -> None:
    corner = plan.glyph_corner.clamp(0, SIZE - 4)
    for video in range(len(pixels)):  # a copy of 16 pixels each
        y, x = int(corner[video, 0]), int(corner[video, 1])
        pixels[video, :, :, y : y + 4, x : x + 4] = _GLYPHS[plan.glyph[video]]
        things[video, :, y : y + 4, x : x + 4] = GLYPH


def _texture(draws: Draws, plan: Plan, frames: int) -> Tensor:
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
    moved = drift[:, :, None] * torch.arange(frames, device="cpu")  # [B, waves, T]
    # sin(a + b) by its parts: T x S x S products instead of as many sines
    weight = torch.stack([amplitude[..., None] * moved.cos(), amplitude[..., None] * moved.sin()], 1)
    basis = torch.stack([along.sin(), along.cos()], 1)  # [B, 2, waves, S, S]
    return torch.einsum("bcwt,bcwyx->btyx", weight, basis)


def _crops(draws: Draws, footage: Tensor, frames: int) -> Tensor:
    """Luminance to add, [B, T, S, S]: crops of real video, a pixel made of 1 to 4 squared, evened in contrast."""
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
