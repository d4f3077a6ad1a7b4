"""Videos made on the fly. Every frame carries its own number as its brightness, so that tests can tell which it is."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

CLIPS = Path(__file__).resolve().parents[2].parent / "shared" / "video"


def grey(number: int) -> int:
    """Brightness of frame ``number``; 20 steps apart, so that coding noise cannot blur neighbours."""
    return 20 + (number * 20) % 220


def write_video(
    path: Path,
    frames: Iterable[npt.NDArray[np.uint8]] | int,
    *,
    size: tuple[int, int] = (64, 48),
    rate: int = 10,
    gop: int = 10,
    times: list[int] | None = None,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    audio_seconds: float = 0.0,
) -> Path:
    """Encodes uint8 [H, W, 3] frames, or that many plain grey ones of ``size`` (width, height).

    ``times`` are presentation times in milliseconds; without them frames are 1/rate apart.
    """
    if isinstance(frames, int):
        frames = (np.full((size[1], size[0], 3), grey(i), dtype=np.uint8) for i in range(frames))
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options=options or {"preset": "ultrafast"})
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream("aac", rate=8000, layout="mono") if audio_seconds else None
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.time_base, frame.pts = Fraction(1, 1000), times[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if audio is not None:
            write_silence(container, audio, audio_seconds)
    return path


def write_silence(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    for start in range(0, int(8000 * seconds), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
