"""Pictures of a compression: what was kept, and how surprising each patch was."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

CONTACT_FRAMES = 16
CONTACT_WIDTH = 360  # pixels, of one frame in the contact sheet
OVERLAY_WIDTH = 960  # pixels at most, of one of the two pictures in the overlay video
OVERLAY_FPS = 10
OVERLAY_HOLD = 4  # output frames per sampled frame, fewer where that would make the overlay longer than ...
OVERLAY_FRAMES = 1200  # ... this many output frames

GAP = 12
LABEL = 24  # height of a line of text under or over a frame
BACKGROUND = (18, 20, 24)
TEXT = (214, 218, 224)
FAINT = (134, 140, 150)
OUTLINE = (96, 214, 190)

# Colours of rising surprise, from nearly black over violet and orange to pale yellow; lightness rises evenly, so that
# the picture also reads in grey.
RAMP = np.array(
    [(12, 8, 32), (74, 14, 104), (148, 32, 100), (216, 72, 66), (248, 148, 40), (252, 244, 164)], np.float32
)

Image8 = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Compressed:
    """A compressed video as the pictures need it."""

    frames: Image8
    """uint8 [T, H, W, 3]; H and W multiples of the grid."""
    timestamps: npt.NDArray[np.float64]
    """float64 [T], seconds."""
    kept: npt.NDArray[np.bool_]
    """bool [T, gh, gw]: which patches were kept."""
    surprise: npt.NDArray[np.float32]
    """float32 [T, gh, gw]; not finite where there is no frame before."""


def dim_dropped(frame: Image8, kept: npt.NDArray[np.bool_]) -> Image8:
    """A frame uint8 [H, W, 3] with the patches that were dropped (bool [gh, gw]) dark and nearly grey.

    What was kept is outlined where it borders on what was not, so that it shows in dark scenes too.
    """
    grey = frame.mean(2, keepdims=True, dtype=np.float32)
    dark = 0.22 * (0.75 * grey + 0.25 * frame) + 8
    shown = _over_pixels(kept, frame)  # [H, W]
    inner = shown.copy()
    inner[2:] &= shown[:-2]
    inner[:-2] &= shown[2:]
    inner[:, 2:] &= shown[:, :-2]
    inner[:, :-2] &= shown[:, 2:]
    mixed: Image8 = np.where(shown[:, :, None], frame, dark).astype(np.uint8)
    mixed[shown & ~inner] = OUTLINE
    return mixed


def heat(frame: Image8, surprise: npt.NDArray[np.float32], scale: float) -> Image8:
    """Surprise float32 [gh, gw] in colours of ``RAMP``, full at ``scale``, over a faint grey uint8 frame [H, W, 3].

    Patches without a finite surprise show the faint frame alone.
    """
    level = np.clip(np.nan_to_num(surprise / scale, posinf=0.0, neginf=0.0), 0, 1) * (len(RAMP) - 1)
    steps = np.arange(len(RAMP), dtype=np.float32)
    colour = np.stack([np.interp(level, steps, RAMP[:, c]) for c in range(3)], axis=2)  # [gh, gw, 3]
    grey = frame.mean(2, keepdims=True, dtype=np.float32)
    known = _over_pixels(np.isfinite(surprise), frame)[:, :, None]
    mixed: Image8 = np.where(known, 0.82 * _over_pixels(colour, frame) + 0.18 * grey, 0.3 * grey + 16).astype(np.uint8)
    return mixed


def heat_scale(surprise: npt.NDArray[np.float32]) -> float:
    """The surprise that gets the full colour: the 99th percentile, so that a few odd patches do not darken the rest."""
    finite = surprise[np.isfinite(surprise)]
    return max(float(np.percentile(finite, 99)), 1e-6) if finite.size else 1.0


def contact_sheet(video: Compressed, title: str, facts: str) -> Image.Image:
    """Up to ``CONTACT_FRAMES`` frames, evenly chosen, in a grid: above what was kept, below the surprise as heat."""
    count = min(len(video.frames), CONTACT_FRAMES)
    chosen = np.linspace(0, len(video.frames) - 1, count).round().astype(int)
    scale = heat_scale(video.surprise)
    columns = 4 if count > 4 else count
    rows = -(-count // columns)
    height, width = video.frames.shape[1:3]
    # tall frames are made narrower, so that a cell never gets taller than it is wide by much
    shrink = min(CONTACT_WIDTH / width, CONTACT_WIDTH / height)
    cell_width, cell_height = max(1, round(width * shrink)), max(1, round(height * shrink))
    step_x = max(cell_width, CONTACT_WIDTH // 2) + GAP
    step_y = LABEL + 2 * cell_height + 4 + GAP
    strip = 84
    sheet_width = max(columns * step_x + GAP, 900)
    sheet = Image.new("RGB", (sheet_width, strip + rows * step_y + GAP // 2), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (GAP, 12), title, 26, TEXT, sheet_width - 260)
    _write(draw, (GAP, 50), facts, 15, FAINT, sheet_width - 260)
    _draw_legend(sheet, draw, scale)
    left = (sheet_width - columns * step_x + GAP) // 2
    for place, t in enumerate(chosen):
        x, y = left + place % columns * step_x, strip + place // columns * step_y
        _write(draw, (x, y), _label(video, int(t)), 14, FAINT, step_x - GAP)
        for line, picture in enumerate(_pair(video, int(t), scale)):
            small = Image.fromarray(picture).resize((cell_width, cell_height), Image.Resampling.LANCZOS)
            sheet.paste(small, (x, y + LABEL + line * (cell_height + 4)))
    return sheet


def write_overlay(path: Path, video: Compressed) -> None:
    """Writes an H.264 video (yuv420p, even size): what was kept beside the surprise as heat, frame by frame.

    Raises:
        OSError: the file cannot be written, or this build of PyAV has no libx264.
    """
    height, width = video.frames.shape[1:3]
    shrink = min(1.0, OVERLAY_WIDTH / max(width, height))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    scale = heat_scale(video.surprise)
    hold = max(1, min(OVERLAY_HOLD, OVERLAY_FRAMES // len(video.frames)))
    canvas_size = _even(max(2 * size[0] + 3 * GAP, 320)), _even(size[1] + LABEL + 2 * GAP)
    try:
        with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=OVERLAY_FPS, options={"crf": "20", "preset": "veryfast"})
            stream.width, stream.height = canvas_size
            stream.pix_fmt = "yuv420p"
            for t in range(len(video.frames)):
                canvas = Image.new("RGB", canvas_size, BACKGROUND)
                _write(ImageDraw.Draw(canvas), (GAP, 6), _label(video, t), 15, TEXT, canvas_size[0] - 2 * GAP)
                for place, picture in enumerate(_pair(video, t, scale)):
                    resized = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
                    canvas.paste(resized, (GAP + place * (size[0] + GAP), LABEL + GAP))
                frame = av.VideoFrame.from_ndarray(np.asarray(canvas), format="rgb24")
                for repeat in range(hold):
                    frame.pts = t * hold + repeat
                    container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except av.error.FFmpegError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error


def _pair(video: Compressed, t: int, scale: float) -> tuple[Image8, Image8]:
    """What was kept of a frame, and its heat; both uint8 [H, W, 3]."""
    frame = video.frames[t]
    return dim_dropped(frame, video.kept[t]), heat(frame, video.surprise[t], scale)


def _label(video: Compressed, t: int) -> str:
    return f"{video.timestamps[t]:.2f} s    kept {int(video.kept[t].sum())} of {video.kept[t].size}"


def _over_pixels(values: npt.NDArray[Any], frame: Image8) -> npt.NDArray[Any]:
    """[gh, gw, ...] of patches -> [H, W, ...] of pixels."""
    rows, columns = frame.shape[0] // values.shape[0], frame.shape[1] // values.shape[1]
    return values.repeat(rows, axis=0).repeat(columns, axis=1)


def _draw_legend(sheet: Image.Image, draw: ImageDraw.ImageDraw, scale: float) -> None:
    """The colours of surprise, in the upper right corner."""
    width, height = 180, 14
    ramp = np.linspace(0, len(RAMP) - 1, width)
    colours = np.stack([np.interp(ramp, np.arange(len(RAMP)), RAMP[:, c]) for c in range(3)], axis=1)
    bar = np.broadcast_to(colours.astype(np.uint8), (height, width, 3))
    x, y = sheet.width - width - GAP - 8, 20
    sheet.paste(Image.fromarray(np.ascontiguousarray(bar)), (x, y))
    _write(draw, (x, y + height + 6), f"surprise 0 to {scale:.2g} (99th percentile)", 11, FAINT, width + 16)


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, fill: tuple[int, int, int], width: int
) -> None:
    """One line of text, cut to a width in pixels."""
    font = ImageFont.load_default(size)
    if draw.textlength(text, font) > width:
        while text and draw.textlength(text + "...", font) > width:
            text = text[:-1]
        text += "..."
    draw.text(at, text, fill, font)


def _even(size: int) -> int:
    """Chroma planes of yuv420p are half as large."""
    return size + size % 2
