"""Pictures that Pillow reads better than libav: JPEG with its orientation, and WebP, animated or not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from score_video.video.container import VideoError, check_frame_size
from score_video.video.orientation import Orientation
from score_video.video.sampling import (
    Fit,
    ReportProgress,
    SampledVideo,
    ScaledFrames,
    SourceFacts,
    numbers_of_frames,
)
from score_video.video.timeline import Timeline

_DURATION = 100  # milliseconds of a frame that says 0, as browsers have it
_EXIF_ORIENTATIONS = {
    2: Orientation(mirrored=True),
    3: Orientation(rotation=180),
    4: Orientation(mirrored=True, rotation=180),
    5: Orientation(mirrored=True, rotation=90),
    6: Orientation(rotation=270),
    7: Orientation(mirrored=True, rotation=270),
    8: Orientation(rotation=90),
}


def read_picture(
    path: str | Path, fit: Fit, *, num_frames: int | None, fps: float | None, progress: ReportProgress | None
) -> SampledVideo:
    """As :func:`score_video.video.read_frames`, for a file that begins as a JPEG or WebP picture does."""
    with _opened(path) as image:
        check_frame_size(path, *image.size)
        timeline = _timeline(image)
        taken = np.unique(numbers_of_frames(path, timeline, num_frames, fps))
        orientation = _EXIF_ORIENTATIONS.get(image.getexif().get(ExifTags.Base.Orientation, 1), Orientation())
        frames = ScaledFrames(path, fit, len(taken))
        frames.settle(image.height, image.width, orientation)
        for done, number in enumerate(taken.tolist(), start=1):
            image.seek(number)
            frames.add(partial(_scaled, image))
            if progress is not None:
                progress(done, len(taken))
        kind = str(image.format).lower()
        return SampledVideo(
            frames=frames.stack(),
            timestamps=timeline.times[taken].astype(np.float64) / 1000,
            source=SourceFacts(
                width=frames.displayed[1],
                height=frames.displayed[0],
                rotation=orientation.rotation,
                mirrored=orientation.mirrored,
                codec=kind,
                container=kind,
                duration=timeline.seconds,
                frames=len(timeline),
                fps=timeline.rate,
            ),
            decoded=len(taken) + (len(timeline) if len(timeline) > 1 else 0),
            damaged=0,
            on_display=len(taken),
        )


def _scaled(image: Image.Image, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    return np.asarray(image.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC))


def _timeline(image: Image.Image) -> Timeline:
    """In milliseconds. How long a frame of an animation is shown is known when it has been decoded."""
    count = int(getattr(image, "n_frames", 1)) if image.format == "WEBP" else 1
    starts, end = [], 0
    for number in range(count):
        starts.append(end)
        if count > 1:
            image.seek(number)
            image.load()
        end += int(image.info.get("duration", 0)) or _DURATION
    return Timeline(np.array(starts, dtype=np.int64), end, Fraction(1, 1000))


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """The picture; what Pillow says of damage becomes a VideoError."""
    try:
        with Image.open(path, formats=["JPEG", "WEBP"]) as image:
            yield image
    except VideoError:
        raise
    except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path}: damaged or cut off: {error}") from error
