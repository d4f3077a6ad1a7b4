"""Reading video: a few frames of any local file, in bounded memory, whatever the file contains.

Only what is sampled gets decoded: for each sampled time the nearest keyframe before it is looked up with a second,
never decoded handle on the file, and the decoder jumps there when that skips anything. Each chosen frame is scaled at
once, so that memory is bounded by what is returned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from score_video.video_file import (
    Extent,
    Keyframes,
    VideoError,
    check_frame_size,
    find_extent,
    first_times,
    open_video,
    read_packets,
    seek,
    time_base,
    tolerance,
)

__all__ = ["SampledVideo", "SourceFacts", "VideoError", "read_frames"]

MAX_SAMPLED_BYTES = 2**30  # of all scaled frames together
MAX_TIMES = 1_000_000


@dataclass(frozen=True)
class SourceFacts:
    """What is known about a video file."""

    width: int
    """Displayed width in pixels: after rotation and with square pixels."""
    height: int
    """Displayed height in pixels."""
    rotation: int
    """Degrees, counter-clockwise, by which stored frames are turned for display: 0, 90, 180 or 270."""
    codec: str
    container: str
    duration: float
    """Seconds from the first frame to the end of the last, as found in the data (the header may say otherwise)."""
    fps: float | None
    """Average frame rate by the header; None where it is unknown."""


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


def read_frames(
    path: str | Path,
    fit: Callable[[int, int], tuple[int, int]],
    *,
    num_frames: int | None = None,
    fps: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SampledVideo:
    """Samples frames of a local video file by time.

    With ``num_frames`` N the times are the centres of N equal spans of the video, or, where it has no more than N
    frames, theirs; with ``fps`` F they are every 1/F seconds from the start on. The frame of a time is the one on
    display then, so variable frame rates come out right. No frame is taken twice: a video that shows fewer distinct
    frames at these times yields fewer.

    Packets that do not decode are skipped, as players do, and counted.

    Args:
        path: an existing regular file.
        fit: (height, width) of the displayed frame -> (height, width) to which sampled frames are scaled.
        num_frames, fps: exactly one of the two.
        progress: called with (times done, times in all).

    Raises:
        ValueError: an impossible ``num_frames`` or ``fps``, or both or neither.
        VideoError: the file is missing, empty, truncated, damaged beyond use, of absurd size, without video, or of a
            kind that would open other files; or the sampled frames would exceed ``MAX_SAMPLED_BYTES``.
    """
    _check_sampling(num_frames, fps)
    with open_video(path) as (container, stream), open_video(path) as (lookup, lookup_stream):
        try:
            first = first_times(path, lookup, lookup_stream, (num_frames or 0) + 1)
            extent = find_extent(path, lookup, lookup_stream, first)
            if num_frames is not None and len(first) <= num_frames:
                times = np.asarray(first, dtype=np.int64)  # that is all of them
            else:
                times = _sample_times(path, extent, time_base(stream), num_frames, fps)
            cursor = _Cursor(path, container, stream, Keyframes(lookup, lookup_stream, extent), extent)
            return _sample(path, cursor, times, fit, progress)
        except av.error.FFmpegError as error:
            raise VideoError(f"{path}: cannot be read: {error.strerror}") from error


def _check_sampling(num_frames: int | None, fps: float | None) -> None:
    if (num_frames is None) == (fps is None):
        raise ValueError("give either a number of frames or a rate (fps), not both and not neither")
    if num_frames is not None and not 1 <= num_frames <= MAX_TIMES:
        raise ValueError(f"the number of frames must be between 1 and {MAX_TIMES}, got {num_frames}")
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps must be a positive number, got {fps}")


def _sample_times(
    path: str | Path, extent: Extent, base: Fraction, num_frames: int | None, fps: float | None
) -> npt.NDArray[np.int64]:
    """Times to sample at, int64, ascending, in the stream's time base."""
    length = extent.end - extent.start
    if num_frames is not None:
        offsets = (np.arange(num_frames) + 0.5) * (length / num_frames)
    else:
        assert fps is not None
        count = math.ceil(float(length * base) * fps)
        if count > MAX_TIMES:
            raise VideoError(
                f"{path}: {fps:g} frames a second of {float(length * base):.1f} s are more than {MAX_TIMES}"
            )
        offsets = np.arange(max(1, count)) / (fps * float(base))
    # Down to whole ticks, so that no frame is taken before its time; the millionth is for products that should be whole
    times: npt.NDArray[np.int64] = extent.start + np.floor(offsets + 1e-6).astype(np.int64)
    return times


class _Cursor:
    """A place in a video that moves forward only: the frame on display there and the one after it."""

    def __init__(
        self,
        path: str | Path,
        container: InputContainer,
        stream: VideoStream,
        keyframes: Keyframes,
        extent: Extent,
    ) -> None:
        self.path = path
        self.container = container
        self.stream = stream
        self.extent = extent
        self.decoded = 0
        self.damaged = 0
        self._keyframes = keyframes
        self._current: VideoFrame | None = None
        self._next: VideoFrame | None = None
        self._ended = False
        self._frames = self._decode(first_keyframe=None)

    def at(self, time: int) -> VideoFrame:
        """The frame on display at a time (the first one, if it comes on later), in the stream's time base."""
        if not self._ended and (self._next is None or _pts(self._next) <= time):
            self._jump(time)
            while not self._ended and (self._next is None or _pts(self._next) <= time):
                self._step()
        frame = self._current or self._next
        if frame is None:
            raise VideoError(f"{self.path}: none of its frames can be decoded")
        if self._ended and self.extent.last - _pts(frame) > tolerance(
            self.extent.end - self.extent.start, time_base(self.stream)
        ):
            at = max(0.0, float((_pts(frame) - self.extent.start) * time_base(self.stream)))
            raise VideoError(f"{self.path}: damaged: nothing can be decoded after {at:.1f} s")
        return frame

    def _jump(self, time: int) -> None:
        """Seeks to the keyframe before ``time`` if that skips frames."""
        found = self._keyframes.before(time)
        if found is None:
            return
        target, keyframe = found
        if (self._next is None or keyframe > _pts(self._next)) and seek(self.container, self.stream, target):
            self._current = self._next = None
            self._frames = self._decode(first_keyframe=keyframe)

    def _step(self) -> None:
        frame = next(self._frames, None)
        if frame is None:
            self._ended = True
            self._current, self._next = self._next or self._current, None
        elif self._next is None or _pts(frame) > _pts(self._next):  # damaged files go back in time
            self._current, self._next = self._next, frame

    def _decode(self, first_keyframe: int | None) -> Iterator[VideoFrame]:
        """Frames with timestamps from here on; packets before the named keyframe are dropped undecoded."""
        packets: Iterator[Packet[Stream] | None] = self._with_flush()
        for packet in packets:
            if first_keyframe is not None and packet is not None:
                if not (packet.is_keyframe and packet.pts is not None and packet.pts >= first_keyframe):
                    continue
                first_keyframe = None
            try:
                frames = self.stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                self.damaged += 1
                continue
            for frame in frames:
                self.decoded += 1
                if frame.pts is not None:
                    yield frame

    def _with_flush(self) -> Iterator[Packet[Stream] | None]:
        yield from read_packets(self.container, self.stream)
        yield None  # makes the decoder hand out what it still holds


def _pts(frame: VideoFrame) -> int:
    assert frame.pts is not None  # _decode lets no other frame through
    return frame.pts


def _sample(
    path: str | Path,
    cursor: _Cursor,
    times: npt.NDArray[np.int64],
    fit: Callable[[int, int], tuple[int, int]],
    progress: Callable[[int, int], None] | None,
) -> SampledVideo:
    base = time_base(cursor.stream)
    frames: list[npt.NDArray[np.uint8]] = []
    timestamps: list[float] = []
    taken: int | None = None
    displayed = size = (0, 0)
    rotation = 0
    for done, time in enumerate(times, start=1):
        frame = cursor.at(int(time))
        if taken is None:  # the first frame settles size and orientation for all
            check_frame_size(path, frame.width, frame.height)
            rotation = round(frame.rotation / 90) * 90 % 360
            displayed = _displayed_size(cursor.stream, frame, rotation)
            size = fit(*displayed)
        if taken is None or _pts(frame) > taken:
            if (len(frames) + 1) * size[0] * size[1] * 3 > MAX_SAMPLED_BYTES:
                raise VideoError(
                    f"{path}: more than {len(frames)} frames of {size[1]}x{size[0]} pixels asked for: "
                    "take fewer or smaller ones"
                )
            frames.append(_to_rgb(frame, size, rotation))
            taken = _pts(frame)
            timestamps.append(float((taken - cursor.extent.start) * base))
        if progress is not None:
            progress(done, len(times))
    stream = cursor.stream
    return SampledVideo(
        frames=np.stack(frames),
        timestamps=np.asarray(timestamps, dtype=np.float64),
        source=SourceFacts(
            width=displayed[1],
            height=displayed[0],
            rotation=rotation,
            codec=stream.codec_context.name,
            container=cursor.container.format.name,
            duration=float((cursor.extent.end - cursor.extent.start) * base),
            fps=float(stream.average_rate) if stream.average_rate else None,
        ),
        decoded=cursor.decoded,
        damaged=cursor.damaged,
    )


def _displayed_size(stream: VideoStream, frame: VideoFrame, rotation: int) -> tuple[int, int]:
    """(height, width) with square pixels, turned for display. Pixel shapes beyond 1:8 are taken for damage."""
    aspect = stream.codec_context.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, 8) <= aspect <= 8:
        aspect = Fraction(1)
    width, height = max(1, round(frame.width * aspect)), frame.height
    return (width, height) if rotation % 180 else (height, width)


def _to_rgb(frame: VideoFrame, size: tuple[int, int], rotation: int) -> npt.NDArray[np.uint8]:
    """Scales and turns a decoded frame. Returns uint8 [H, W, 3]."""
    height, width = size[::-1] if rotation % 180 else size  # scaled first, while stored upright
    scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC", threads=1)
    return np.ascontiguousarray(np.rot90(scaled.to_ndarray().astype(np.uint8, copy=False), rotation // 90))
