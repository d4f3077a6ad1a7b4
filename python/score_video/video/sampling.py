"""Reading video: a few frames of any local file, in bounded memory, whatever the file contains.

All packets are looked at, which tells what is shown when (:mod:`score_video.video.timeline`); only what is sampled gets
decoded, from the nearest keyframe before it (:mod:`score_video.video.decoding`). Each chosen frame is scaled at once,
so that memory is bounded by what is returned.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from score_video.errors import ScoreError
from score_video.video.container import NEW_PYAV, VideoError, check_frame_size, is_for_pillow, open_video, read_head
from score_video.video.decoding import Cursor, DisorderedError
from score_video.video.orientation import Orientation, orientation_of
from score_video.video.timeline import Timeline, by_count, read_timeline

MAX_SAMPLED_BYTES = 2**30  # of all scaled frames together
MAX_TIMES = 1_000_000

Fit = Callable[[int, int], tuple[int, int]]
"""(height, width) of the displayed frame -> (height, width) to which sampled frames are scaled."""
ReportProgress = Callable[[int, int], None]
"""Called with (times done, times in all)."""


@dataclass(frozen=True)
class SourceFacts:
    """What is known about a video file."""

    width: int
    """Displayed width in pixels: after rotation and with square pixels."""
    height: int
    """Displayed height in pixels."""
    rotation: int
    """Degrees, counter-clockwise, by which stored frames are turned for display: 0, 90, 180 or 270."""
    mirrored: bool
    """Whether left and right of stored frames are exchanged for display, before they are turned."""
    codec: str
    container: str
    duration: float
    """Seconds from the first frame to the end of the last, as found in the data (the header may say otherwise)."""
    frames: int
    """How many frames it shows; packets that do not decode are counted, too."""
    fps: float | None
    """Frames a second on average, as found in the data; None of a single one."""


@dataclass(frozen=True)
class SampledVideo:
    """Frames of a video and the times they were taken at."""

    frames: npt.NDArray[np.uint8]
    """uint8 [T, H, W, 3], RGB, in display orientation."""
    timestamps: npt.NDArray[np.float64]
    """float64 [T], seconds since the first frame, strictly ascending: when each frame comes on."""
    source: SourceFacts
    decoded: int
    """How many frames the decoder produced to get at these."""
    damaged: int
    """How many packets the decoder refused, and that were skipped."""
    on_display: int
    """How many different frames are on display at the times that were sampled; those missing did not decode."""

    def why_fewer(self, asked: int | None) -> str | None:
        """Why there are fewer frames than were asked for, in a few words; None where there are not."""
        if asked is None or len(self.frames) >= asked:
            return None
        reasons = []
        if self.source.frames < asked:
            reasons.append(f"the video has only {self.source.frames}")
        elif self.on_display < asked:
            reasons.append(f"some stay on longer than 1/{asked} of the video")
        if len(self.frames) < self.on_display:
            reasons.append(f"{self.on_display - len(self.frames)} could not be decoded")
        return ", ".join(reasons)


def read_frames(
    path: str | Path,
    fit: Fit,
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    allow_truncated: bool = False,
    progress: ReportProgress | None = None,
) -> SampledVideo:
    """Samples frames of a local video file by time.

    With ``num_frames`` N the times are the centres of N equal spans of the video, or, where it has no more than N
    frames, theirs; with ``fps`` F they are every 1/F seconds from the start on. The frame of a time is the one on
    display then, so variable frame rates come out right. No frame is taken twice: a video that shows fewer distinct
    frames at these times yields fewer.

    What is shown is what a player shows: not what an edit list has cut off. Where times begin anew or jump ahead
    (joined recordings), what follows comes on when the last frame before goes off; where frames have no times of their
    own (program streams, raw streams), they are as long as the rate says. Packets that do not decode are skipped, as
    players do, and counted. A picture is a video of one frame, an animated one (GIF, APNG, WebP) of several.

    Args:
        path: an existing regular file.
        fit: says to which size sampled frames are scaled.
        num_frames, fps: exactly one of the two.
        allow_truncated: read what there is of a file that ends well before its header says so, or of which nothing can
            be decoded beyond some time, instead of refusing it.
        progress: told how far it is.

    Raises:
        ValueError: an impossible ``num_frames`` or ``fps``, or both or neither.
        VideoError: the file is missing, empty, truncated, damaged beyond use, of absurd size, without video, or of a
            kind that would open other files; or the sampled frames would exceed ``MAX_SAMPLED_BYTES``.
    """
    _check_sampling(num_frames, fps)
    if is_for_pillow(path, read_head(path)):
        from score_video.video.pillow import read_picture  # it builds on this module

        return read_picture(path, fit, num_frames=num_frames, fps=fps, progress=progress)
    try:
        with open_video(path) as searching:
            timeline = read_timeline(path, *searching, allow_truncated=allow_truncated)
            # Where the packets did not say what is shown, what the decoder shows is counted, and once more gone by
            for last_try in (False, False, True):
                numbers = numbers_of_frames(path, timeline, num_frames, fps)
                with open_video(path) as decoding:
                    cursor = Cursor(path, decoding, searching, timeline, numbers, allow_truncated=allow_truncated)
                    try:
                        sampled = _sample(path, cursor, numbers, fit, progress)
                        count = len(timeline) if timeline.frame_of is not None else cursor.count_all()
                    except DisorderedError:
                        count = timeline.packets_shown
                    else:
                        if count == len(timeline) or last_try:
                            return sampled
                timeline = by_count(searching[1], count)
            raise AssertionError("unreachable: the last try returns or raises")
    except av.error.FFmpegError as error:
        raise VideoError(f"{path}: cannot be read: {error.strerror}") from error


def _check_sampling(num_frames: int | None, fps: float | None) -> None:
    if (num_frames is None) == (fps is None):
        raise ScoreError("give either a number of frames or a rate (fps), not both and not neither")
    if num_frames is not None and not 1 <= num_frames <= MAX_TIMES:
        raise ScoreError(f"the number of frames must be between 1 and {MAX_TIMES}, got {num_frames}")
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ScoreError(f"fps must be a positive number, got {fps}")


def numbers_of_frames(
    path: str | Path, timeline: Timeline, num_frames: int | None, fps: float | None
) -> npt.NDArray[np.int64]:
    """int64, ascending, with repetitions: for each time that is sampled the frame on display then."""
    if num_frames is not None and len(timeline) <= num_frames:
        return np.arange(len(timeline), dtype=np.int64)  # that is all of them
    if num_frames is not None:
        ticks = (np.arange(num_frames) + 0.5) * (timeline.end / num_frames)
    else:
        assert fps is not None
        count = math.ceil(timeline.seconds * fps)
        if count > MAX_TIMES:
            raise VideoError(f"{path}: {fps:g} frames a second of {timeline.seconds:.1f} s are more than {MAX_TIMES}")
        ticks = np.arange(max(1, count)) / (fps * float(timeline.base))
    # Down to whole ticks, so that no frame is taken before its time; the millionth is for products that should be whole
    whole = np.floor(ticks + 1e-6).astype(np.int64)
    on_display: npt.NDArray[np.int64] = np.searchsorted(timeline.times, whole, side="right") - 1
    return on_display


def _sample(
    path: str | Path,
    cursor: Cursor,
    numbers: npt.NDArray[np.int64],
    fit: Fit,
    progress: ReportProgress | None,
) -> SampledVideo:
    stream, timeline = cursor.stream, cursor.timeline
    taken: list[int] = []
    frames = ScaledFrames(path, fit, len(np.unique(numbers)))
    for done, wanted in enumerate(numbers.tolist(), start=1):
        number, frame = cursor.at(wanted)
        if not taken:
            check_frame_size(path, frame.width, frame.height)
            frames.settle(*_square_pixels(stream, frame), orientation_of(frame))
        if not taken or number > taken[-1]:
            frames.add(partial(_to_rgb, frame))
            taken.append(number)
        if progress is not None:
            progress(done, len(numbers))
    return SampledVideo(
        frames=frames.stack(),
        timestamps=timeline.times[taken].astype(np.float64) * float(timeline.base),
        source=SourceFacts(
            width=frames.displayed[1],
            height=frames.displayed[0],
            rotation=frames.orientation.rotation,
            mirrored=frames.orientation.mirrored,
            codec=stream.codec_context.name,
            container=cursor.container.format.name,
            duration=timeline.seconds,
            frames=len(timeline),
            fps=timeline.rate,
        ),
        decoded=cursor.decoded,
        damaged=cursor.damaged,
        on_display=len(np.unique(numbers)),
    )


class ScaledFrames:
    """Sampled frames, all of the size and orientation that the first one settles."""

    def __init__(self, path: str | Path, fit: Fit, most: int) -> None:
        """most: how many will be added, if all can be decoded."""
        self._path = path
        self._fit = fit
        self._most = most
        self._frames: npt.NDArray[np.uint8] | None = None  # [at most most, H, W, 3], of which the first are there
        self._count = 0
        self.orientation = Orientation()
        self.displayed = self.stored_size = (0, 0)

    def settle(self, height: int, width: int, orientation: Orientation) -> None:
        """Says how large the first frame is as it is stored, with square pixels, and how it is turned.

        From then on ``displayed`` is its (height, width) as shown, and ``stored_size`` that to which frames are
        scaled before they are turned.
        """
        self.orientation = orientation
        self.displayed = (width, height) if orientation.turns_sides else (height, width)
        size = self._fit(*self.displayed)
        self.stored_size = size[::-1] if orientation.turns_sides else size

    def add(self, scale: Callable[[tuple[int, int]], npt.NDArray[np.uint8]]) -> None:
        """Takes a frame: ``scale`` makes it, uint8 [H, W, 3], of a (height, width).

        Raises:
            VideoError: there are too many; nothing was scaled.
        """
        height, width = self.stored_size[::-1] if self.orientation.turns_sides else self.stored_size
        room = MAX_SAMPLED_BYTES // (height * width * 3)
        if self._count == room:
            raise VideoError(
                f"{self._path}: more than {room} frames of {width}x{height} pixels asked for: "
                "take fewer or smaller ones"
            )
        if self._frames is None:
            self._frames = np.empty((min(self._most, room), height, width, 3), np.uint8)
        self._frames[self._count] = self.orientation.apply(scale(self.stored_size))
        self._count += 1

    def stack(self) -> npt.NDArray[np.uint8]:
        """uint8 [T, H, W, 3], as shown; T at least 1."""
        assert self._frames is not None
        return self._frames[: self._count]


def _square_pixels(stream: VideoStream, frame: VideoFrame) -> tuple[int, int]:
    """(height, width) of a frame as stored, with square pixels. Pixel shapes beyond 1:8 are taken for damage."""
    aspect = stream.codec_context.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, 8) <= aspect <= 8:
        aspect = Fraction(1)
    return frame.height, max(1, round(frame.width * aspect))


def _to_rgb(frame: VideoFrame, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Scales a decoded frame to (height, width). Returns uint8 [H, W, 3]."""
    options: dict[str, Any] = {"threads": 1} if NEW_PYAV else {}  # older ones have no threads of their own for it
    scaled = frame.reformat(width=size[1], height=size[0], format="rgb24", interpolation="BICUBIC", **options)
    return scaled.to_ndarray().astype(np.uint8, copy=False)
