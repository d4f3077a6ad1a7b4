"""Pictures of a compression: what was kept, and how surprising each patch was; of pixels or a model's own tokens."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

import score_ext
from score_video.errors import ScoreError
from score_video.packed import PackedVideos

PICTURES = ("contact.png", "overlay.mp4")

CONTACT_FRAMES = 16
CONTACT_WIDTH = 360  # pixels, of one frame in the contact sheet
OVERLAY_WIDTH = 960  # pixels at most, of one of the two pictures in the overlay video
OVERLAY_HOLD = Fraction(2, 5)  # seconds that each sampled frame is shown, less where the overlay would be longer than
OVERLAY_SECONDS = 120  # ... this, but no less than OVERLAY_SHORTEST
OVERLAY_SHORTEST = Fraction(1, 10)

GAP = 12
LABEL = 24  # height of a line of text under or over a frame
BACKGROUND = (18, 20, 24)
TEXT = (214, 218, 224)
FAINT = (134, 140, 150)
OUTLINE = (96, 214, 190)
RULE_COLOURS = (OUTLINE, (250, 178, 84), (142, 170, 255))  # of the rules that are compared, in order
CURVE = 56  # height of the curve of how many are kept of each frame

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
    """float32 [T, gh, gw]; not finite where there is no frame before, or the vision tower saw nothing."""
    name: str = ""
    """Of what decided."""
    others: tuple[tuple[str, npt.NDArray[np.bool_]], ...] = ()
    """Further rules to compare it with, at most two: the name and what it keeps, as ``kept``."""
    seen: npt.NDArray[np.bool_] | None = None
    """bool [T, gh, gw], what the vision tower saw; None: everything."""

    @property
    def rules(self) -> tuple[tuple[str, npt.NDArray[np.bool_]], ...]:
        """All that are shown, the first first."""
        return ((self.name, self.kept), *self.others)


def write_pictures(
    folder: Path,
    name: str,
    how: str,
    frames: npt.NDArray[np.uint8],
    timestamps: npt.NDArray[np.float64],
    video: PackedVideos,
    index: Tensor,
    others: Sequence[tuple[str, Tensor]] = (),
    seen: Tensor | None = None,
) -> None:
    """Writes ``PICTURES``: a sheet of some frames, and a video of all.

    Args:
        folder: an existing folder to write into.
        name, how: what the video is called and what decided, for the title.
        frames: uint8 [T, H, W, 3]; H and W multiples of the rows and columns of tokens.
        timestamps: float64 [T], seconds.
        video: one video on the CPU, of T frames of tokens; or of ceil(T / m), where a model makes one frame of tokens
            of each m frames.
        index: int64 [K], the tokens that are kept.
        others: further rules to show beside it, at most two: the name, and the tokens that it keeps.
        seen: int64 [E], the tokens that the vision tower saw; None: all.

    Raises:
        OSError: a file cannot be written.
    """
    pictured, facts = compressed(how, frames, timestamps, video, index, others, seen)

    def write_sheet() -> None:
        # level 2 of 9: on pictures of real frames a tenth larger than the default of 6, in a quarter of the time
        contact_sheet(pictured, name, facts).save(folder / PICTURES[0], compress_level=2)

    # Side by side: most of either is work of Pillow, zlib and x264, which let other threads run.
    with ThreadPoolExecutor(1) as beside:
        sheet = beside.submit(write_sheet)
        write_overlay(folder / PICTURES[1], pictured)
        sheet.result()


def compressed(
    how: str,
    frames: npt.NDArray[np.uint8],
    timestamps: npt.NDArray[np.float64],
    video: PackedVideos,
    index: Tensor,
    others: Sequence[tuple[str, Tensor]] = (),
    seen: Tensor | None = None,
) -> tuple[Compressed, str]:
    """What is drawn, and a line of facts; arguments as of :func:`write_pictures`."""
    if len(others) >= len(RULE_COLOURS):
        raise ScoreError(f"others must be at most {len(RULE_COLOURS) - 1} rules, got {len(others)}")
    grid = video.grid
    together = -(-len(frames) // grid[0])  # frames to a token
    surprise = score_ext.surprise(video.tokens, video.cu_seqlens, video.tokens_per_frame).numpy()
    of_frame = np.arange(len(frames)) // together

    def places(rows: Tensor) -> npt.NDArray[np.bool_]:
        kept = np.zeros(len(video.tokens), dtype=np.bool_)
        kept[rows.numpy()] = True
        return kept.reshape(grid)[of_frame]

    total = len(video.tokens)
    facts = (
        f"{' / '.join([how, *(name for name, _ in others)])}: kept {len(index)} of {total} tokens "
        f"({len(index) / total:.2%}), {len(frames)} frames of {grid[1]}x{grid[2]} patches"
    )
    if together > 1:
        facts += f", {together} frames to a token"
    if seen is not None:
        facts += f"; the tower saw {len(seen)} ({len(seen) / total:.0%}), the rest is black"
    further = tuple((name, places(rows)) for name, rows in others)
    of_tower, shown = None, surprise.reshape(grid)[of_frame]
    if seen is not None:
        of_tower = places(seen)
        shown = np.where(of_tower, shown, np.float32(np.nan))
    return Compressed(frames, timestamps, places(index), shown, how, further, of_tower), facts


def scale_to_grid(frames: Image8, rows: int, columns: int) -> Image8:
    """Frames uint8 [T, H, W, 3] with whole pixels to a token, about as large as they were, no larger than drawn."""
    shrink = min(1.0, OVERLAY_WIDTH / max(frames.shape[1:3]))
    height, width = (
        max(1, round(side * shrink / cells)) * cells
        for side, cells in zip(frames.shape[1:3], (rows, columns), strict=True)
    )
    images = (Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames)
    return np.stack([np.asarray(image) for image in images])


def dim_dropped(
    frame: Image8,
    kept: npt.NDArray[np.bool_],
    colour: tuple[int, int, int] = OUTLINE,
    seen: npt.NDArray[np.bool_] | None = None,
) -> Image.Image:
    """A frame uint8 [H, W, 3] with the patches that were dropped (bool [gh, gw]) dark and nearly grey; black where the
    vision tower did not see them either.

    What was kept is outlined where it borders on what was not, so that it shows in dark scenes too.
    """
    picture = Image.fromarray(frame)
    dark = Image.blend(_grey(picture), picture, 0.25).point(_line(0.22, 8, 3))
    if seen is not None:
        dark.paste(0, mask=_mask(_over_pixels(~seen, frame)))
    mixed = Image.composite(picture, dark, _mask(_over_pixels(kept, frame)))
    outline(mixed, kept, colour)
    return mixed


def outline(picture: Image.Image, patches: npt.NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
    """Draws a line around patches, bool [gh, gw], where they border on others, into a picture of them."""
    shown = _over_pixels(patches, np.asarray(picture))  # [H, W]
    inner = shown.copy()
    inner[2:] &= shown[:-2]
    inner[:-2] &= shown[2:]
    inner[:, 2:] &= shown[:, :-2]
    inner[:, :-2] &= shown[:, 2:]
    picture.paste(colour, mask=_mask(shown & ~inner))


def heat(frame: Image8, surprise: npt.NDArray[np.float32], scale: float) -> Image.Image:
    """Surprise float32 [gh, gw] in colours of ``RAMP``, full at ``scale``, over a faint grey uint8 frame [H, W, 3].

    Patches without a finite surprise show the faint frame alone.
    """
    level = np.clip(np.nan_to_num(surprise / scale, posinf=0.0, neginf=0.0), 0, 1) * (len(RAMP) - 1)
    steps = np.arange(len(RAMP), dtype=np.float32)
    colour = np.stack([np.interp(level, steps, RAMP[:, c]) for c in range(3)], axis=2)  # [gh, gw, 3]
    grey = Image.fromarray(frame).convert("L")
    coloured = Image.blend(
        grey.convert("RGB"), Image.fromarray(_over_pixels(colour.round().astype(np.uint8), frame)), 0.82
    )
    faint = grey.point(_line(0.3, 16, 1)).convert("RGB")
    return Image.composite(coloured, faint, _mask(_over_pixels(np.isfinite(surprise), frame)))


def heat_scale(surprise: npt.NDArray[np.float32]) -> float:
    """The surprise that gets the full colour: the 99th percentile, so that a few odd patches do not darken the rest."""
    finite = surprise[np.isfinite(surprise)]
    return max(float(np.percentile(finite, 99)), 1e-6) if finite.size else 1.0


def contact_sheet(video: Compressed, title: str, facts: str) -> Image.Image:
    """Up to ``CONTACT_FRAMES`` frames, evenly chosen, in a grid: above what was kept, rule by rule, below the surprise
    as heat. Over the grid, how many each rule kept of every frame, as a curve."""
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
    step_y = LABEL + (1 + len(video.rules)) * (cell_height + 4) - 4 + GAP
    curve = CURVE + 2 * GAP if len(video.frames) > 1 else 0
    strip = 84 + curve
    sheet_width = max(columns * step_x + GAP, 900)
    sheet = Image.new("RGB", (sheet_width, strip + rows * step_y + GAP // 2), BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _write(draw, (GAP, 12), title, 26, TEXT, sheet_width - 260)
    _write(draw, (GAP, 50), facts, 15, FAINT, sheet_width - 260)
    _draw_legend(sheet, draw, scale)
    if curve:
        _draw_curve(draw, video, (GAP, 84, sheet_width - GAP, 84 + CURVE))
    left = (sheet_width - columns * step_x + GAP) // 2
    for place, t in enumerate(chosen):
        x, y = left + place % columns * step_x, strip + place // columns * step_y
        _write(draw, (x, y), _label(video, int(t)), 14, FAINT, step_x - GAP)
        for line, picture in enumerate(_shown(video, int(t), scale)):
            small = picture.resize((cell_width, cell_height), Image.Resampling.LANCZOS)
            sheet.paste(small, (x, y + LABEL + line * (cell_height + 4)))
    return sheet


def write_overlay(path: Path, video: Compressed) -> None:
    """Writes an H.264 video (yuv420p, even size): what was kept beside the surprise as heat, frame by frame.

    Raises:
        OSError: the file cannot be written, or this build of PyAV has no libx264.
    """
    height, width = video.frames.shape[1:3]
    # three or four pictures beside each other are as wide as two
    shrink = min(1.0, OVERLAY_WIDTH * 2 / (1 + len(video.rules)) / max(width, height))
    size = max(1, round(width * shrink)), max(1, round(height * shrink))
    scale = heat_scale(video.surprise)
    hold = max(OVERLAY_SHORTEST, min(OVERLAY_HOLD, Fraction(OVERLAY_SECONDS, len(video.frames))))
    across = 1 + len(video.rules)
    canvas_size = _even(max(across * (size[0] + GAP) + GAP, 320)), _even(size[1] + LABEL + 2 * GAP)
    try:
        with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
            stream = container.add_stream("libx264", rate=1 / hold, options={"crf": "20", "preset": "veryfast"})
            stream.width, stream.height = canvas_size
            stream.pix_fmt = "yuv420p"
            for t in range(len(video.frames)):
                canvas = Image.new("RGB", canvas_size, BACKGROUND)
                _write(ImageDraw.Draw(canvas), (GAP, 6), _label(video, t), 15, TEXT, canvas_size[0] - 2 * GAP)
                for place, picture in enumerate(_shown(video, t, scale)):
                    canvas.paste(
                        picture.resize(size, Image.Resampling.LANCZOS), (GAP + place * (size[0] + GAP), LABEL + GAP)
                    )
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(canvas), format="rgb24")))
            container.mux(stream.encode(None))
    except av.error.FFmpegError as error:
        raise OSError(error.errno, f"cannot be written: {error.strerror}", str(path)) from error


def _shown(video: Compressed, t: int, scale: float) -> list[Image.Image]:
    """What each rule kept of a frame, and its heat."""
    frame = video.frames[t]
    seen = None if video.seen is None else video.seen[t]
    rules = zip(video.rules, RULE_COLOURS, strict=False)
    shown = [dim_dropped(frame, kept[t], colour, seen) for (_, kept), colour in rules]
    return [*shown, heat(frame, video.surprise[t], scale)]


def _label(video: Compressed, t: int) -> str:
    counts = " / ".join(str(int(kept[t].sum())) for _, kept in video.rules)
    return f"{video.timestamps[t]:.2f} s    kept {counts} of {video.kept[t].size}"


def _draw_curve(draw: ImageDraw.ImageDraw, video: Compressed, box: tuple[int, int, int, int]) -> None:
    """How many tokens each rule keeps of each frame, in a box (left, top, right, bottom)."""
    left, top, right, bottom = box
    counts = [kept.sum(axis=(1, 2)) for _, kept in video.rules]
    most = max(1, *(int(count.max()) for count in counts))
    draw.line([(left, bottom), (right, bottom)], fill=FAINT)
    xs = np.linspace(left, right, len(video.frames))
    for number, (count, colour) in enumerate(zip(counts, RULE_COLOURS, strict=False)):
        ys = bottom - count / most * (bottom - top - 4)
        draw.line([(float(x), float(y)) for x, y in zip(xs, ys, strict=True)], fill=colour, width=2)
        if len(counts) > 1:
            _write(draw, (left + 6 + 190 * number, bottom + 3), video.rules[number][0], 12, colour, 180)
    note = f"kept per frame, 0 to {most}"
    width = int(draw.textlength(note, ImageFont.load_default(12))) + 2
    _write(draw, (right - width, bottom + 3), note, 12, FAINT, width)


def _grey(picture: Image.Image) -> Image.Image:
    """The same without its colours, still RGB."""
    return picture.convert("L").convert("RGB")


@functools.cache
def _line(slope: float, offset: float, channels: int) -> tuple[int, ...]:
    """The table of slope * value + offset for the channels of a picture."""
    return tuple(round(slope * value + offset) for value in range(256)) * channels


def _mask(places: npt.NDArray[np.bool_]) -> Image.Image:
    """bool [H, W] as Pillow wants it."""
    return Image.fromarray(places.astype(np.uint8) * 255)


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
