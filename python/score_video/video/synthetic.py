"""A small clip for trying things where no video is at hand: ``python -m score_video.video.synthetic OUT.mp4``.

Over a textured background that pans slowly, a disc bounces, a square crosses, and a bar flashes once. For a second and
a half in the middle everything stands still.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import av
import numpy as np
import numpy.typing as npt
import typer
from PIL import Image

from score_video.command_line import run_module
from score_video.files import output_file

WIDTH, HEIGHT = 320, 240
FPS = 25
SECONDS = 6
STILL = (2.25, 3.75)  # seconds
FLASH = (4.6, 4.9)


def render() -> Iterator[npt.NDArray[np.uint8]]:
    """The frames, uint8 [HEIGHT, WIDTH, 3] each."""
    texture = _texture(HEIGHT + 64, WIDTH + 128)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for number in range(SECONDS * FPS):
        seconds = number / FPS
        moved = min(seconds, STILL[0]) + max(0.0, seconds - STILL[1])  # time that stops
        left, top = round(16 * moved), round(6 * moved)
        frame = texture[top : top + HEIGHT, left : left + WIDTH].copy()
        disc_x, disc_y = 160 + 110 * np.sin(1.7 * moved), 200 - abs(120 * np.sin(2.6 * moved))
        frame[(x - disc_x) ** 2 + (y - disc_y) ** 2 < 26**2] = (228, 84, 52)
        square_x, square_y = 20 + 48 * moved, 40 + 14 * moved
        frame[(abs(x - square_x) < 18) & (abs(y - square_y) < 18)] = (60, 190, 200)
        if FLASH[0] <= seconds < FLASH[1]:
            frame[150:166, 30:110] = (250, 240, 140)
        yield frame


def _texture(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Smooth coloured noise of several scales, uint8 [height, width, 3]."""
    rng = np.random.default_rng(7)
    total = np.zeros((height, width, 3), dtype=np.float32)
    for scale, weight in ((64, 90), (16, 60), (4, 24)):
        coarse = rng.integers(0, 256, (height // scale + 2, width // scale + 2, 3), dtype=np.uint8)
        smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        total += (np.asarray(smooth, dtype=np.float32) / 255 - 0.5) * weight
    texture: npt.NDArray[np.uint8] = np.clip(total + np.array([84, 100, 92]), 0, 255).astype(np.uint8)
    return texture


def write_clip(path: Path) -> None:
    """Renders and encodes the clip: H.264 in MP4, 320x240, 25 fps, 6 s. Raises OSError if it cannot be written."""
    with output_file(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for pixels in render():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def main(out: Annotated[Path, typer.Argument(help="The file to write (.mp4); one that is there is replaced.")]) -> None:
    """Make a small clip, for trying things where no video is at hand."""
    write_clip(out)


if __name__ == "__main__":
    run_module(main)
