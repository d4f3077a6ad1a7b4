"""Clips whose frames carry their number in black and white stripes, and files that are damaged, cut and joined."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 128, 64
MOST = 256  # numbers that eight stripes tell apart


def picture(number: int) -> npt.NDArray[np.uint8]:
    """uint8 [HEIGHT, WIDTH, 3]: stripe b, from left to right, is white where bit b of the number is set."""
    bits = np.array([number >> bit & 1 for bit in range(8)], dtype=np.uint8)
    return np.broadcast_to((bits * 235).repeat(WIDTH // 8)[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def number_of(frame: npt.NDArray[np.uint8]) -> int:
    """The number of a decoded frame uint8 [H, W, 3]."""
    stripes = frame[:, : frame.shape[1] // 8 * 8].reshape(frame.shape[0], 8, -1)
    middle = slice(stripes.shape[2] // 4, 3 * stripes.shape[2] // 4)
    return sum(int(stripes[:, bit, middle].mean() > 110) << bit for bit in range(8))


def write_numbered(
    path: Path,
    numbers: Sequence[int],
    times: Sequence[int],
    *,
    rate: int,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
) -> Path:
    """Encodes one frame for each of ``numbers``, shown from ``times`` on, in units of 1/rate seconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pix_fmt
        stream.codec_context.time_base = Fraction(1, rate)
        for number, time in zip(numbers, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def shown_by_a_player(path: Path) -> list[int]:
    """Numbers of all frames that a plain decode from beginning to end gives."""
    with av.open(str(path)) as container:
        return [number_of(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def cut_by_edit_list(path: Path, front: Fraction, length: Fraction) -> None:
    """Makes an MP4 begin ``front`` seconds later and last ``length`` seconds, as phones do: its data stay."""
    data = bytearray(path.read_bytes())
    ticks, movie = (struct.unpack(">I", data[data.index(box) + 16 :][:4])[0] for box in (b"mdhd", b"mvhd"))
    at = data.index(b"elst") + 12
    (begins,) = struct.unpack(">i", data[at + 4 : at + 8])
    data[at : at + 8] = struct.pack(">Ii", round(length * movie), begins + round(front * ticks))
    for box, where in ((b"mvhd", 20), (b"tkhd", 24)):
        begin = data.index(box) + where
        data[begin : begin + 4] = struct.pack(">I", round(length * movie))
    path.write_bytes(data)


def set_display_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Has an MP4 shown with (x, y) at (a x + c y, b x + d y)."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the display matrix: 3x3, 16.16 fixed point, last column 2.30
    data[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
