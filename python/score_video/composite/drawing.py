"""Drawn things, and the codec that every video goes through."""

from __future__ import annotations

import io
from functools import lru_cache
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from score_video.composite.media import DRAWINGS
from score_video.composite.scenery import FRAMES, SIZE, find_once

Sprite = npt.NDArray[np.float32]
_FONT_SIZE = 72


def draw(folder: Path, symbol: str, size: float, angle: float, mirrored: bool, light: float) -> Sprite:
    """A drawing of OpenMoji's.

    Args:
        folder: path of the folder of media.
        symbol: one emoji.
        size: pixels, the longer side before it is turned.
        angle: degrees, anticlockwise.
        mirrored: left and right.
        light: factor of its brightness.

    Returns:
        float32 [height, width, 4], 0 to 1: red, green, blue, opacity.
    """
    picture = _symbol(find_once(folder, DRAWINGS), symbol)
    longest = max(picture.size)
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    turned = picture.rotate(angle, Image.Resampling.BICUBIC, expand=True)
    width, height = (max(1, round(size * side / longest)) for side in turned.size)
    pixels = np.asarray(turned.resize((width, height), Image.Resampling.BOX), np.float32) / 255
    return np.concatenate([np.clip(pixels[..., :3] * light, 0, 1), pixels[..., 3:]], 2)


@lru_cache(maxsize=64)
def _symbol(font: Path, symbol: str) -> Image.Image:
    side = 2 * _FONT_SIZE
    picture = Image.new("RGBA", (side, side))
    pen = ImageDraw.Draw(picture)
    pen.text((side // 4, side // 4), symbol, font=ImageFont.truetype(str(font), _FONT_SIZE), embedded_color=True)
    return picture.crop(picture.getbbox())


def recode(frames: npt.NDArray[np.uint8], quality: int) -> npt.NDArray[np.uint8]:
    """A video after H.264, so that nothing in it stands still bit for bit.

    Args:
        frames: uint8 [FRAMES, SIZE, SIZE, 3].
        quality: x264's constant rate factor; lower is better.

    Returns:
        the same shape.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"crf": str(quality), "preset": "veryfast", "threads": "1"}
        stream = container.add_stream("libx264", rate=8, options=options)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    buffer.seek(0)
    with av.open(buffer, "r") as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    decoded = np.stack(pictures).astype(np.uint8, copy=False)
    assert decoded.shape == (FRAMES, SIZE, SIZE, 3)
    return decoded
