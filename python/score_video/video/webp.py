"""WebP pictures, animated or not, by Pillow: libav reads no animated ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

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


def read_webp(
    path: str | Path, fit: Fit, *, num_frames: int | None, fps: float | None, progress: ReportProgress | None
) -> SampledVideo:
    """As :func:`score_video.video.read_frames`, for a file that begins as a WebP picture does."""
    with _opened(path) as image:
        check_frame_size(path, *image.size)
        count = getattr(image, "n_frames", 1)
        starts, end = [], 0
        for number in range(count):
            image.seek(number)
            image.load()  # tells how long it is shown
            starts.append(end)
            end += int(image.info.get("duration", 0)) or _DURATION
        timeline = Timeline(np.array(starts, dtype=np.int64), end, Fraction(1, 1000))
        numbers = numbers_of_frames(path, timeline, num_frames, fps)
        frames = ScaledFrames(path, fit)
        frames.settle(image.height, image.width, Orientation())
        height, width = frames.stored_size
        taken = np.unique(numbers)
        for done, number in enumerate(taken.tolist(), start=1):
            image.seek(number)
            picture = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
            frames.add(np.asarray(picture))
            if progress is not None:
                progress(done, len(taken))
        return SampledVideo(
            frames=frames.stack(),
            timestamps=timeline.times[taken] / 1000,
            source=SourceFacts(
                width=image.width,
                height=image.height,
                rotation=0,
                mirrored=False,
                codec="webp",
                container="webp",
                duration=timeline.seconds,
                frames=count,
                fps=None,
            ),
            decoded=count + len(taken),
            damaged=0,
        )


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """The picture; what Pillow says of damage becomes a VideoError."""
    try:
        with Image.open(path, formats=["WEBP"]) as image:
            yield image
    except VideoError:
        raise
    except (OSError, ValueError, EOFError, SyntaxError, Image.DecompressionBombError) as error:
        raise VideoError(f"{path}: damaged or cut off: {error}") from error
