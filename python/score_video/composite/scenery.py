"""What is behind the things of a video: windows of real footage, and photographs before a moving camera."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from score_video.composite.media import FOOTAGE, PHOTOGRAPHS, Group, Medium, find

FRAMES, SIZE = 16, 126
CAMERAS = ("still", "pan", "zoom", "shake")
SHARE_OF_FOOTAGE = 0.4  # of the videos, where the group has footage
SHARE_OF_CUTS = 0.25  # of the videos before photographs
_TALLEST = 360  # footage is scaled down to it
_WIDEST = 900  # photographs are scaled to it

Path2D = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scenery:
    """The background of a video.

    Attributes:
        frames: float32 [FRAMES, SIZE, SIZE, 3], 0 to 1.
        source: names of the media, for telling results apart.
        camera: index into CAMERAS; None over footage, whose camera nobody knows.
        cut: the frame from which on another photograph is seen; None without a cut.
        shift: float64 [FRAMES, 2], pixels (y, x) by which what is painted on the scene has moved since frame 0.
        scale: float64 [FRAMES], by which it has grown.
    """

    frames: npt.NDArray[np.float32]
    source: str
    camera: int | None
    cut: int | None
    shift: Path2D
    scale: npt.NDArray[np.float64]


def draw_scenery(folder: Path, group: Group, generator: np.random.Generator, one_photograph: bool = False) -> Scenery:
    """A background drawn at random.

    Args:
        folder: path of the folder of media.
        group: the one whose media it may show.
        generator: decides everything.
        one_photograph: it is one from the first frame to the last; only the camera may move.
    """
    clips = [medium for medium in FOOTAGE if medium.group == group and not one_photograph]
    if clips and generator.random() < SHARE_OF_FOOTAGE:
        return _window(folder, clips[generator.integers(len(clips))], generator)
    photographs = [medium for medium in PHOTOGRAPHS if medium.group == group]
    first, second = (photographs[n] for n in generator.choice(len(photographs), 2, replace=False))
    camera = int(generator.integers(len(CAMERAS)))
    frames, shift, scale = _filmed(folder, first, CAMERAS[camera], generator)
    if one_photograph or generator.random() >= SHARE_OF_CUTS:
        return Scenery(frames, first.name, camera, None, shift, scale)
    cut = int(generator.integers(4, FRAMES - 3))
    other, _, _ = _filmed(folder, second, CAMERAS[camera], generator)
    frames[cut:] = other[cut:]
    return Scenery(frames, f"{first.name}, {second.name}", camera, cut, shift, scale)


def _window(folder: Path, medium: Medium, generator: np.random.Generator) -> Scenery:
    """A square of footage, at every second, fourth or eighth frame."""
    pictures = _footage(find_once(folder, medium))
    strides = [stride for stride in (2, 4, 8) if (FRAMES - 1) * stride < len(pictures)]
    stride = int(generator.choice(strides))
    first = int(generator.integers(len(pictures) - (FRAMES - 1) * stride))
    width, height = pictures[0].size
    side = int(generator.integers(min(110, min(width, height) - 1), min(width, height) + 1))
    x, y = int(generator.integers(width - side + 1)), int(generator.integers(height - side + 1))
    box = (x, y, x + side, y + side)
    frames = np.stack([_cut_out(pictures[first + t * stride], box) for t in range(FRAMES)])
    return Scenery(frames, medium.name, None, None, np.zeros((FRAMES, 2)), np.ones(FRAMES))


def _filmed(
    folder: Path, medium: Medium, camera: str, generator: np.random.Generator
) -> tuple[npt.NDArray[np.float32], Path2D, npt.NDArray[np.float64]]:
    """A photograph before a camera: frames, and the shift and scale of what is painted on it."""
    picture = _photograph(find_once(folder, medium))
    width, height = picture.size
    side = generator.uniform(0.45, 0.8) * min(width, height)
    shift, scale = np.zeros((FRAMES, 2)), np.ones(FRAMES)
    along = np.linspace(0, 1, FRAMES)
    if camera == "pan":
        angle = generator.uniform(0, 2 * np.pi)
        shift = along[:, None] * np.array([np.sin(angle), np.cos(angle)]) * generator.uniform(14, 34)
    elif camera == "zoom":
        scale = generator.choice([0.72, 0.8, 1.25, 1.4]) ** along
    elif camera == "shake":
        steps = generator.normal(0, 2.2, (FRAMES, 2)).cumsum(0)
        shift = steps - steps[0] - along[:, None] * (steps[-1] - steps[0]) * 0.7
    sides = side / scale
    middle = np.array([height, width]) / 2 + generator.uniform(-0.5, 0.5, 2) * (np.array([height, width]) - side)
    frames = []
    for t in range(FRAMES):
        # a thing moves to the right by so many pixels of the frame where the window moves to the left
        centre = middle - shift[t] * sides[t] / SIZE
        low = np.clip(centre - sides[t] / 2, 0, np.maximum(0, np.array([height, width]) - sides[t]))
        high = np.minimum(low + sides[t], np.array([height, width]))
        frames.append(_cut_out(picture, (float(low[1]), float(low[0]), float(high[1]), float(high[0]))))
    return np.stack(frames), shift, scale


def _cut_out(picture: Image.Image, box: tuple[float, float, float, float]) -> npt.NDArray[np.float32]:
    """A part of a picture, as a frame."""
    frame = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box, reducing_gap=2.0)
    pixels: npt.NDArray[np.float32] = np.asarray(frame, np.float32) / np.float32(255)
    return pixels


@lru_cache
def find_once(folder: Path, medium: Medium) -> Path:
    """As :func:`~score_video.composite.media.find`, checked once in a process."""
    return find(folder, medium)


@lru_cache
def _footage(path: Path) -> list[Image.Image]:
    pictures = []
    with av.open(path) as container:
        for frame in container.decode(video=0):
            picture: Image.Image = frame.to_image()  # type: ignore[no-untyped-call]
            if picture.height > _TALLEST:
                size = (round(picture.width * _TALLEST / picture.height), _TALLEST)
                picture = picture.resize(size, Image.Resampling.BOX)
            pictures.append(picture)
    return pictures


@lru_cache
def _photograph(path: Path) -> Image.Image:
    picture = Image.open(path).convert("RGB")
    return picture.resize((_WIDEST, round(_WIDEST * picture.height / picture.width)), Image.Resampling.BOX)
