"""Opening a video file safely.

Files come from anywhere. libav is confined to the one file it was given, and absurd sizes are refused before anything
is allocated for them.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition, Stream
from av.video.stream import VideoStream
from packaging.version import Version

from score_video.errors import ScoreError

MAX_SIDE = 16384  # pixels
MAX_PIXELS = 2**26  # of one frame, 64 megapixels

# Containers that hold their video in the one file. Left out on purpose: whatever opens further files or addresses
# (playlists, concat scripts, manifests, image patterns, devices) and what turns text into pictures.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,ogg,asf,asf_o,gif,apng,mxf,gxf,nut,"
    "rm,dv,wtv,swf,ivf,obu,av1,h264,hevc,vvc,m4v,h261,h263,mjpeg,vc1,dirac,yuv4mpegpipe,"
    "png_pipe,bmp_pipe,tiff_pipe"
)
NEW_PYAV = Version(av.__version__) >= Version("17.1")
# For decoders that look at the first frames while a file is opened. PyAV before 17.1 is given nothing for them: where
# some streams turn up only then (MPEG, FLV), it frees more copies of its options than it made, and crashes.
_WHILE_OPENING = {"max_pixels": str(MAX_PIXELS)} if NEW_PYAV else None
_HEAD = 12  # bytes that tell a picture's format
_JPEG = b"\xff\xd8\xff"
_JPEG_SEARCHED = 2**22  # bytes in which a second picture is looked for
_STILLS = ("heic", "heix", "heim", "heis", "mif1", "avif")  # brands of MP4 files that hold pictures


class VideoError(ScoreError):
    """A file that cannot be read as video. The message is one line that names the file and what is wrong with it."""


def read_head(path: str | Path) -> bytes:
    """The first bytes of an existing, regular file that is not empty. Raises VideoError for anything else."""
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise VideoError(f"{path}: not a regular file")
        if status.st_size == 0:
            raise VideoError(f"{path}: the file is empty")
        with Path(path).open("rb") as file:
            return file.read(_HEAD)
    except OSError as error:
        raise VideoError(f"{path}: {error.strerror}") from error
    except ValueError as error:  # a zero byte in the name
        raise error if isinstance(error, VideoError) else VideoError(f"{path}: {error}") from error


def is_for_pillow(path: str | Path, head: bytes) -> bool:
    """Whether a file that begins so is a WebP picture, or a JPEG and not a stream of them (motion JPEG)."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return True
    return head.startswith(_JPEG) and not _is_motion_jpeg(path)


def _is_motion_jpeg(path: str | Path) -> bool:
    with Path(path).open("rb") as file:
        data = file.read(_JPEG_SEARCHED)
    # a multi-picture file, of two lenses say, has several too, and an index that says so
    return b"\xff\xd9" + _JPEG in data and b"MPF\0" not in data


@contextmanager
def open_video(path: str | Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a file and picks its video stream, with libav confined to that file."""
    known = "mjpeg" if read_head(path).startswith(_JPEG) else None  # by its name it might be one of numbered pictures
    confined = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
    try:
        # An absolute path starts with a slash and therefore is never taken for a protocol such as "concat:".
        container = av.open(
            str(Path(path).absolute()),
            "r",
            format=known,
            options=_WHILE_OPENING,
            container_options=confined,
            metadata_errors="replace",
        )
    except (av.error.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: {_why_not_opened(error)}") from error
    with container:
        yield container, _video_stream(path, container)


def _why_not_opened(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.EINVAL:
        return "not a video file, or of a kind that is not read here (a playlist, a script, text or audio)"
    if isinstance(error, av.error.InvalidDataError):
        return "not a video file, or cut off or damaged before its header is complete"
    return f"cannot be opened: {getattr(error, 'strerror', None) or error}"


def _video_stream(path: str | Path, container: InputContainer) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]  # cover art
    if not streams:
        raise VideoError(f"{path}: has no video stream")
    if len(streams) > 1 and container.metadata.get("major_brand") in _STILLS:
        raise VideoError(f"{path}: a picture in {len(streams)} parts (HEIC, AVIF); convert it to JPEG or PNG first")
    best = container.streams.best("video")
    stream = best if isinstance(best, VideoStream) and best in streams else streams[0]
    # PyAV leaves this None, against its type, where no decoder is built in
    if stream.codec_context is None or not stream.time_base:
        raise VideoError(f"{path}: no decoder for its video stream")
    if stream.codec_context.width and stream.codec_context.height:  # else the first frame will tell
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


def read_packets(container: InputContainer) -> Iterator[Packet[Stream]]:
    """Packets of all streams until the data end, in whatever way they end; none is empty."""
    try:
        for packet in container.demux():
            if packet.size:  # libav's flush packets at the end are empty
                yield packet
    except (av.error.FFmpegError, IndexError):
        # A file cut short ends in an error here; the callers see by time what is missing. IndexError: PyAV's, at the
        # end of the data, where damage made a stream turn up that was not there when the file was opened.
        return


def seek(container: InputContainer, stream: VideoStream, time: int) -> bool:
    """Moves to a keyframe at or before a time; False where the format or the file does not allow it."""
    try:
        container.seek(time, stream=stream)
    except (av.error.FFmpegError, OverflowError):
        return False
    return True
