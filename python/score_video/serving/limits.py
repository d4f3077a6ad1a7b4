"""How large the videos of requests may be, looked at before anything of them is decoded.

What a file says of itself is read with libav confined to that file, so that playlists, scripts and devices open nothing
(:mod:`score_video.video.container`).
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path

from score_video.errors import ScoreError
from score_video.video.container import VideoError, open_video, time_base

VARIABLE = "SCORE_VIDEO_LIMITS"
"""The environment variable: ``seconds=600,frames=20000``; what is left out keeps its default."""


class RefusedVideoError(ScoreError):
    """A video of a request that is too large, or no video. The message is for its client.

    Attributes:
        reason: a name of :class:`Limits`, or "unreadable".
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Limits:
    """The most that is read.

    Attributes:
        megabytes: largest size of a file, 10**6 bytes each.
        seconds: longest that it may say it lasts.
        frames: most that it may say it has.
        pixels: most that a frame may have.
        decoded_megabytes: most that all frames decoded from it may take, three bytes a pixel.
    """

    megabytes: int = 512
    seconds: int = 14_400
    frames: int = 1_000_000
    pixels: int = 33_177_600
    decoded_megabytes: int = 8_192

    @staticmethod
    def read() -> Limits:
        """Those of the variable.

        Raises:
            ScoreError: it has a name that there is not, or what is no whole number above 0; names the variable.
        """
        names = [field.name for field in fields(Limits)]
        values = {}
        for part in filter(None, os.environ.get(VARIABLE, "").split(",")):
            name, _, value = part.partition("=")
            if name.strip() not in names:
                raise ScoreError(f"{VARIABLE} must have the names {', '.join(names)}, got {name.strip()!r}")
            if not value.strip().isdecimal() or int(value) < 1:
                raise ScoreError(f"{VARIABLE}: {name.strip()} must be a whole number above 0, got {value.strip()!r}")
            values[name.strip()] = int(value)
        return Limits(**values)

    def check(self, name: str, got: float) -> None:
        """Raises RefusedVideoError where something is more than the limit of that name."""
        limit = getattr(self, name)
        if got > limit:
            raise RefusedVideoError(
                name, f"video must have at most {limit} {name}, got {got:.15g} ({VARIABLE} of the server)"
            )


@dataclass(frozen=True)
class Header:
    """What a file says of its video; 0 where it says nothing.

    Attributes:
        seconds, frames, width, height: what the video has; the last two in pixels.
    """

    seconds: float
    frames: int
    width: int
    height: int


def read_header(data: bytes, limits: Limits) -> Header:
    """Checks a file's size, and then what its header says.

    Raises:
        RefusedVideoError: the file is no video, or larger than a limit.
    """
    limits.check("megabytes", len(data) / 1e6)
    with tempfile.NamedTemporaryFile(prefix="score-video-") as file:
        file.write(data)
        file.flush()
        try:
            header = _header(Path(file.name))
        except VideoError as error:
            said = str(error).replace(f"{file.name}: ", "")
            raise RefusedVideoError("unreadable", f"video cannot be read: {said}") from None
    limits.check("seconds", header.seconds)
    limits.check("frames", header.frames)
    limits.check("pixels", header.width * header.height)
    return header


def _header(path: Path) -> Header:
    with open_video(path) as (container, stream):
        own = 0.0 if stream.duration is None else float(stream.duration * time_base(stream))
        whole = 0.0 if container.duration is None else container.duration / 1e6
        seconds = max(own, whole)
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        frames = max(stream.frames, int(seconds * rate))
        return Header(seconds, frames, stream.codec_context.width, stream.codec_context.height)
