"""Opening a video file safely, and finding one's way in it without decoding.

Files come from anywhere. libav is confined to the one file it was given, absurd sizes are refused before anything is
allocated for them, and what a header claims is checked against the data.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

MAX_SIDE = 16384  # pixels
MAX_PIXELS = 2**26  # of one frame, 64 megapixels
MAX_REORDERED = 32  # frames by which the order of storing may differ from that of showing; codecs allow 16
MAX_KEYFRAME_GAP = 1000  # frames that are looked at in search of a keyframe

# Containers that hold their video in the one file. Left out on purpose: whatever opens further files or addresses
# (playlists, concat scripts, manifests, image patterns, devices) and what turns text into pictures.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,ogg,asf,asf_o,gif,apng,mxf,gxf,nut,"
    "rm,dv,wtv,swf,ivf,obu,av1,h264,hevc,vvc,m4v,h261,h263,mjpeg,vc1,dirac,yuv4mpegpipe,"
    "png_pipe,jpeg_pipe,webp_pipe,bmp_pipe,tiff_pipe"
)


class VideoError(ValueError):
    """A file that cannot be read as video. The message is one line that names the file and what is wrong with it."""


@dataclass(frozen=True)
class Extent:
    """Where the video stream's data lie, in its time base."""

    start: int
    last: int  # presentation time of the last frame
    end: int  # when the last frame goes off


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a file and picks its video stream, with libav confined to that file."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise VideoError(f"{path}: {error.strerror if isinstance(error, OSError) else error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(f"{path}: not a regular file")
    if status.st_size == 0:
        raise VideoError(f"{path}: the file is empty")
    options = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS, "max_pixels": str(MAX_PIXELS)}
    try:
        # An absolute path starts with a slash and therefore is never taken for a protocol such as "concat:".
        container = av.open(str(Path(path).absolute()), "r", options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: {_why_not_opened(error)}") from error
    with container:
        yield container, _video_stream(path, container)


def _why_not_opened(error: Exception) -> str:
    if isinstance(error, av.error.ArgumentError):
        return "not a video file, or of a kind that is not read here (a playlist, a script, text or audio)"
    if isinstance(error, av.error.InvalidDataError):
        return "not a video file, or cut off or damaged before its header is complete"
    return f"cannot be opened: {getattr(error, 'strerror', None) or error}"


def _video_stream(path: str | Path, container: InputContainer) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]  # cover art
    if not streams:
        raise VideoError(f"{path}: has no video stream")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in streams else streams[0]
    # PyAV leaves this None, against its type, where no decoder is built in
    if stream.codec_context is None or not stream.time_base:
        raise VideoError(f"{path}: no decoder for its video stream")
    check_frame_size(path, stream.codec_context.width, stream.codec_context.height)
    stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
    stream.codec_context.thread_type = "AUTO"
    return stream


def check_frame_size(path: str | Path, width: int, height: int) -> None:
    """Raises VideoError for frames without pixels, or with absurdly many."""
    if width < 1 or height < 1:
        raise VideoError(f"{path}: its video has no size ({width}x{height}): damaged or cut off")
    if max(width, height) > MAX_SIDE or width * height > MAX_PIXELS:
        raise VideoError(f"{path}: frames of {width}x{height} pixels are larger than what is read here")


def time_base(stream: VideoStream) -> Fraction:
    """Seconds per tick of the stream's timestamps."""
    assert stream.time_base is not None  # seen to by _video_stream
    return stream.time_base


def read_packets(container: InputContainer, *streams: VideoStream) -> Iterator[Packet[Stream]]:
    """Packets until the data end, in whatever way they end; of all streams if none is named. None is empty."""
    try:
        for packet in container.demux(*streams):
            if packet.size:  # libav's flush packets at the end are empty
                yield packet
    except (av.error.FFmpegError, IndexError):
        # A file cut short ends in an error here; the callers see by time what is missing. IndexError: PyAV's, at the
        # end of the data, where damage made a stream turn up that was not there when the file was opened.
        return


def first_times(path: str | Path, container: InputContainer, stream: VideoStream, count: int) -> list[int]:
    """Presentation times of the first ``count`` frames or more, ascending; fewer where there are no more.

    Has to come first on a freshly opened file: in MPEG streams no seeking leads back to the very first frame, and
    libav changes a stream's start time while it reads.

    Raises:
        VideoError: there is no packet with a timestamp.
    """
    packets = islice(read_packets(container, stream), max(count, MAX_REORDERED))
    times = {p.pts for p in packets if p.pts is not None and not p.is_discard}
    if not times:
        raise VideoError(f"{path}: no video data with timestamps in it (a raw stream, or cut off after its header)")
    return sorted(times)


def find_extent(path: str | Path, container: InputContainer, stream: VideoStream, first: list[int]) -> Extent:
    """Finds where the data really end, from the packets of the last part of the file, and compares with the header.

    Args:
        first: what :func:`first_times` found.

    Raises:
        VideoError: the data end long before the header says they do.
    """
    base = time_base(stream)
    start = first[0]
    declared = start + stream.duration if stream.duration else None
    if declared is None and container.duration:
        declared = int(((container.start_time or 0) + container.duration) / av.time_base / base)

    def scan() -> tuple[int | None, int, int]:
        """Last frame, its end, and the end of all streams; None first if the stream has no timed packet here."""
        last, end, end_of_all = None, start, start
        for packet in read_packets(container):
            if packet.pts is None or packet.time_base is None:
                continue
            packet_end = packet.pts + (packet.duration or 0)
            end_of_all = max(end_of_all, int(packet_end * packet.time_base / base))
            if packet.stream_index == stream.index:
                last = packet.pts if last is None else max(last, packet.pts)
                end = max(end, packet_end)
        return last, end, end_of_all

    last = None
    # Some seconds early: not every seek lands on a keyframe, and frames are stored in another order than shown.
    if declared is not None and seek(container, stream, declared - int(5 / base)):
        last, end, end_of_all = scan()
    if last is None:  # no seeking in this format, or nothing left there: look at all of it
        seek(container, stream, start)
        last, end, end_of_all = scan()
    if last is None:  # no seeking at all, and nothing left: the first frames were all
        last = end = end_of_all = first[-1]
    if declared is not None:
        # Streams without a duration of their own are held to the file's, which the longest stream makes.
        reached = end if stream.duration else end_of_all
        if declared - reached > tolerance(declared - start, base):
            raise VideoError(
                f"{path}: truncated, or its header lies: {float((declared - start) * base):.1f} s by the header, "
                f"but the data end at {float((reached - start) * base):.1f} s"
            )
    if max(abs(start), abs(last), abs(end)) >= 2**62:  # leaves room for arithmetic in int64
        raise VideoError(f"{path}: its timestamps make no sense")
    return Extent(start, max(last, start), max(end, last + 1, start + 1))


def tolerance(length: int, base: Fraction) -> int:
    """How much of a video's end may be missing before it counts as truncated: a second or a tenth."""
    return max(int(1 / base), length // 10)


def seek(container: InputContainer, stream: VideoStream, time: int) -> bool:
    """Moves to a keyframe at or before a time; False where the format or the file does not allow it."""
    try:
        container.seek(time, stream=stream)
    except (av.error.FFmpegError, OverflowError):
        return False
    return True


class Keyframes:
    """Looks up keyframes without decoding, on a handle of its own, so that the decoder's place is not lost."""

    def __init__(self, container: InputContainer, stream: VideoStream, extent: Extent) -> None:
        self._container = container
        self._stream = stream
        self._start = extent.start

    def before(self, time: int) -> tuple[int, int] | None:
        """(time to seek to, presentation time of the keyframe found there); None if no seeking leads to one.

        Some demuxers land after the time asked for, or between keyframes: then further back is tried.
        """
        second = int(1 / time_base(self._stream))
        for back in (0, 1, 4, 16, 64, 256, 1024):
            target = time - back * second
            if target < self._start or not seek(self._container, self._stream, target):
                return None
            for packet in islice(read_packets(self._container, self._stream), MAX_KEYFRAME_GAP):
                if packet.is_keyframe and packet.pts is not None:
                    if packet.pts <= time:
                        return target, packet.pts
                    break
        return None
