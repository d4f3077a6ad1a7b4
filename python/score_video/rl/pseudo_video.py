"""Videos made of one still image, for the first stage of the curriculum.

SCORE's first stage trains on "static pseudo-videos" (arXiv 2603.26365); how they are made is not published. Our
reading: the image held still, seen by a moving camera, or under sensor noise, on pixels and before the vision tower.

To add a motion: write a function like those below, add it to ``MOTIONS``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from score_video.checks import check_integer
from score_video.errors import ScoreError

Motion = Callable[[Tensor, int, torch.Generator], Tensor]
"""(image float32 [3, H, W] in 0..1, number of frames T, random numbers) -> float32 [T, 3, H, W] in 0..1."""

ZOOM = 1.5
"""How many times larger the image is shown at the near end of a zoom."""

PAN_WINDOW = 0.75
"""Height and width of a panning camera's window, as a fraction of the image's."""

NOISE_SD = 0.04
"""Standard deviation of the noise, in units of the range of values (10 of 255)."""


def pseudo_video(image: Tensor, frames: int, motion: str = "mixed", *, seed: int = 0) -> Tensor:
    """Turns an image into a video of ``frames`` frames.

    Args:
        image: uint8 [H, W, 3], or float [H, W, 3] with values from 0 to 1.
        frames: T, at least 1.
        motion: a name in ``MOTIONS``.
        seed: what the motion is drawn from, 0 to 2^63 - 1; the same seed gives the same video.

    Returns:
        [T, H, W, 3] of the image's dtype, in the image's range of values.

    Raises:
        TypeError, ValueError: a wrong dtype, shape, range, number of frames or motion.
    """
    if not isinstance(image, Tensor) or not (image.dtype == torch.uint8 or image.is_floating_point()):
        raise TypeError(f"image must be a tensor of uint8 or floats, got {getattr(image, 'dtype', type(image))}")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ScoreError(f"image must be [height, width, 3], got {list(image.shape)}")
    check_integer("frames", frames, 1)
    if motion not in MOTIONS:
        raise ScoreError(f"there is no motion {motion!r}; there are {', '.join(MOTIONS)}")
    scale = 255.0 if image.dtype == torch.uint8 else 1.0
    unit = image.permute(2, 0, 1).to(torch.float32) / scale
    # written so that NaN fails too
    if not bool(((unit >= 0) & (unit <= 1)).all()):
        raise ScoreError(f"image must have values from 0 to 1, got {unit.min():g} to {unit.max():g}")
    video = MOTIONS[motion](unit, frames, torch.Generator().manual_seed(seed)).permute(0, 2, 3, 1)
    if image.dtype == torch.uint8:
        return (video * 255).round().to(torch.uint8)
    return video.to(image.dtype)


def _repeat(image: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """The image, T times."""
    return image.expand(frames, *image.shape)


def _pan(image: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """A window of fixed size slides along a straight line through the image's middle, from one side to the other."""
    angle = 2 * math.pi * _uniform(generator)
    reach = (1 - PAN_WINDOW) / max(abs(math.cos(angle)), abs(math.sin(angle)))  # to the border, in half images
    along = reach * (2 * _ease(frames) - 1)
    return _look(image, torch.full_like(along, PAN_WINDOW), along * math.cos(angle), along * math.sin(angle))


def _zoom(image: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """From the whole image towards a point of it, or back."""
    path = _ease(frames)
    if _uniform(generator) < 0.5:
        path = path.flip(0)
    window = ZOOM ** (-path)  # equal factors in equal times look like an even speed
    x, y = (2 * _uniform(generator) - 1 for _ in range(2))
    return _look(image, window, (1 - window) * x, (1 - window) * y)


def _noise(image: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """The image under Gaussian noise, new in each frame; held within the range of values."""
    noise = torch.randn((frames, *image.shape), generator=generator, dtype=torch.float32, device="cpu")
    return (image + NOISE_SD * noise).clamp(0, 1)


def _mixed(image: Tensor, frames: int, generator: torch.Generator) -> Tensor:
    """One of the other four motions, each equally likely."""
    choices = (_repeat, _pan, _zoom, _noise)
    return choices[int(_uniform(generator) * len(choices))](image, frames, generator)


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator, dtype=torch.float64, device="cpu"))


def _ease(frames: int) -> Tensor:
    """float32 [T] from 0 to 1, slow at both ends; 0 for a single frame."""
    time = torch.linspace(0, 1, frames, dtype=torch.float32, device="cpu")
    return time * time * (3 - 2 * time)


def _look(image: Tensor, window: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The image [3, H, W] through a camera: ``window`` [T] is the fraction of it that is seen, ``x`` and ``y`` [T] its
    middle in half images from the image's middle. Bilinear; a window within the image sees nothing else."""
    frames = window.shape[0]
    camera = window.new_zeros(frames, 2, 3)
    camera[:, 0, 0] = camera[:, 1, 1] = window
    camera[:, 0, 2], camera[:, 1, 2] = x, y
    size = [frames, *image.shape]
    grid = torch.nn.functional.affine_grid(camera, size, align_corners=False)
    seen = torch.nn.functional.grid_sample(
        image.expand(size), grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return seen.clamp(0, 1)  # weights sum to 1 only up to rounding


MOTIONS: dict[str, Motion] = {"repeat": _repeat, "pan": _pan, "zoom": _zoom, "noise": _noise, "mixed": _mixed}
