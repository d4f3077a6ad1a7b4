"""A clip cut into frames and tokens, as the page shows it; made once, chosen from as often as the slider moves."""

from __future__ import annotations

import base64
import io
import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

import score_ext
from score_video.app.choosing import Chooser
from score_video.app.decoding import Cut
from score_video.before_tower import Gate, Seen
from score_video.commands.options import Chosen
from score_video.drawing.overlay import scale_to_grid
from score_video.errors import ScoreError
from score_video.packed import PackedVideos
from score_video.progress import Phases
from score_video.video.partial_tower import encode_video
from score_video.video.patches import to_patches
from score_video.video.sampling import SampledVideo
from score_video.video.tower import VisionTower

MAX_FRAMES, MAX_TOKENS = 128, 32_768
"""Of one clip."""

MAX_BYTES = 2**31
"""Of all clips' tokens together; those not used for the longest are put away."""

FIRST_QUESTION = "What happens in this video?"
"""What stands behind a clip that a model sees, until something else is asked."""

SPRITE_PIXELS = 12_000_000
"""Of all frames in one picture; browsers on telephones draw no larger ones."""


@dataclass
class Encoded:
    """One clip, cut one way.

    Attributes:
        clip, name: the clip's key, and what it is called on the page and in exports.
        cut: how it was cut.
        sampled: its frames; H and W multiples of the rows and columns of tokens.
        videos: its tokens, a batch of one.
        milliseconds: how long decoding and the vision side took, by phase.
        extra: what a model needs for questions about it (:class:`score_video.app.answers.SeenVideo`).
        seen: which tokens the vision tower saw, where something was chosen before it; the others are filled in. None:
            all.
        whole: behind such a choice, ``extra`` and ``milliseconds`` of a tower that saw all, once it was needed.
    """

    clip: str
    name: str
    cut: Cut
    sampled: SampledVideo
    videos: PackedVideos
    milliseconds: dict[str, float]
    extra: Any = None
    seen: Seen | None = None
    whole: tuple[Any, dict[str, float]] | None = None
    grid: tuple[int, int, int] = field(init=False)
    """Frames, rows and columns of tokens."""
    surprise: npt.NDArray[np.float32] = field(init=False)
    """float32 [L]; inf where there is no frame before, and where the tower's output was dropped or is not there."""
    _choosers: dict[str, Chooser] = field(init=False, default_factory=dict)
    _lock: threading.Lock = field(init=False, default_factory=threading.Lock)

    def __post_init__(self) -> None:
        videos = self.videos
        self.grid = videos.grid
        surprise = score_ext.surprise(videos.tokens, videos.cu_seqlens, videos.tokens_per_frame)
        self.surprise = surprise.cpu().numpy()
        if self.seen is not None:
            hidden = np.ones(len(self.surprise), np.bool_)
            hidden[self.seen.kept.index.cpu().numpy()] = False
            self.surprise[hidden] = np.inf

    @property
    def together(self) -> int:
        """Frames to a frame of tokens."""
        return -(-len(self.sampled.frames) // self.grid[0])

    def chooser(self, chosen: Chosen) -> Chooser:
        """What chooses among these tokens; the same each time."""
        with self._lock:
            if chosen.name not in self._choosers:
                asks = self.extra is not None and chosen.compressor.needs_question
                question = self.extra.question() if asks else None
                self._choosers[chosen.name] = Chooser(chosen, self.videos, question, self.seen)
            return self._choosers[chosen.name]

    def facts(self) -> dict[str, Any]:
        """What the page needs to draw, as JSON."""
        sampled, source = self.sampled, self.sampled.source
        surprise = np.nan_to_num(self.surprise.astype("<f4"), posinf=-1.0, neginf=-1.0)
        return {
            "grid": self.grid,
            "frames": len(sampled.frames),
            "together": self.together,
            "columns": sprite_columns(len(sampled.frames)),
            "height": sampled.frames.shape[1],
            "width": sampled.frames.shape[2],
            "timestamps": sampled.timestamps.tolist(),
            "surprise": base64.b64encode(surprise.tobytes()).decode(),
            "seen": None if self.seen is None else self._seen_facts(self.seen),
            "fewer": sampled.why_fewer(self.cut.frames),
            "source": {
                "width": source.width,
                "height": source.height,
                "seconds": source.duration,
                "codec": source.codec,
            },
            "milliseconds": {phase: round(time, 1) for phase, time in self.milliseconds.items()},
        }

    def _seen_facts(self, seen: Seen) -> dict[str, Any]:
        """Which tokens were chosen before the tower, which it ran on, and how many these are."""
        total = len(self.videos.tokens)
        return {
            "kept": packed_bits(seen.kept.index, total),
            "encoded": packed_bits(seen.encoded, total),
            "counts": [len(seen.kept.index), len(seen.encoded)],
        }

    def sprite(self) -> bytes:
        """All frames as one JPEG, in rows of :func:`sprite_columns`."""
        frames = self.sampled.frames
        count, height, width, _ = frames.shape
        shrink = min(1.0, math.sqrt(SPRITE_PIXELS / (count * height * width)))
        size = max(1, int(width * shrink)), max(1, int(height * shrink))
        columns = sprite_columns(count)
        sheet = Image.new("RGB", (columns * size[0], -(-count // columns) * size[1]))
        for number, frame in enumerate(frames):
            picture = Image.fromarray(frame)
            if picture.size != size:
                picture = picture.resize(size, Image.Resampling.LANCZOS)
            sheet.paste(picture, (number % columns * size[0], number // columns * size[1]))
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=88)
        return buffer.getvalue()


def sprite_columns(frames: int) -> int:
    """In how many columns so many frames are laid out."""
    return math.ceil(math.sqrt(frames))


def packed_bits(index: Tensor, length: int) -> str:
    """Rows int64 [K] of so many as base64 of a bit for each, the lowest first."""
    mask = np.zeros(length, np.bool_)
    mask[index.cpu().numpy()] = True
    return base64.b64encode(np.packbits(mask, bitorder="little").tobytes()).decode()


class Made(NamedTuple):
    """Tokens of frames; with the frames as the model sees them, and of :class:`Encoded` ``extra`` and ``seen``."""

    sampled: SampledVideo
    videos: PackedVideos
    extra: Any = None
    seen: Seen | None = None


Encode = Callable[[SampledVideo, Phases], Made]
"""What makes tokens of frames."""


def encode_pixels(sampled: SampledVideo, phases: Phases, *, patch: int) -> Made:
    """Patches of pixels, no model: :mod:`score_video.video.patches`."""
    with phases("patches"):
        tokens, grid = to_patches(sampled.frames, patch)
        videos = PackedVideos.from_frames([tokens.view(*grid, -1)])
    return Made(sampled, videos)


def encode_by_tower(tower: VisionTower, gate: Gate | None, sampled: SampledVideo, phases: Phases) -> Made:
    """Tokens of a vision model, which sees what the gate lets through; frames as they are drawn, of whole pixels a
    token."""
    videos, seen = encode_video(tower, sampled.frames, gate, phases)
    frames = scale_to_grid(sampled.frames, *videos.grid[1:])
    return Made(replace(sampled, frames=frames), videos, seen=seen)


class Shelf:
    """Clips that are cut already, by any hashable key; those not used for the longest make room for others."""

    def __init__(self, capacity: int = MAX_BYTES) -> None:
        self._capacity = capacity
        self._kept: OrderedDict[Any, Encoded] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> Encoded | None:
        """The clip, now used last."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Any, encoded: Encoded) -> None:
        """Keeps one more."""
        with self._lock:
            self._kept[key] = encoded
            self._kept.move_to_end(key)
            while len(self._kept) > 1 and sum(map(_bytes_of, self._kept.values())) > self._capacity:
                self._kept.popitem(last=False)

    def drop_clip(self, clip: str) -> None:
        """Forgets all of a clip that was deleted."""
        with self._lock:
            for key in [key for key, encoded in self._kept.items() if encoded.clip == clip]:
                del self._kept[key]


def _bytes_of(encoded: Encoded) -> int:
    copies = 1 if encoded.whole is None else 2
    return copies * encoded.videos.tokens.nbytes + encoded.sampled.frames.nbytes


def check_cut(cut: Cut, by_patches: bool) -> None:
    """Raises ScoreError for what the page does not offer; ``by_patches``, too many of which it counts as too many
    tokens."""
    if not 1 <= cut.frames <= MAX_FRAMES:
        raise ScoreError(f"frames must be 1 to {MAX_FRAMES}, got {cut.frames}")
    if not 112 <= cut.size <= 896:
        raise ScoreError(f"size must be 112 to 896 pixels, got {cut.size}")
    if not 8 <= cut.patch <= 56:
        raise ScoreError(f"patch must be 8 to 56 pixels, got {cut.patch}")
    if by_patches and (most := cut.frames * (cut.size // cut.patch) ** 2) > MAX_TOKENS:
        raise ScoreError(
            f"{cut.frames} frames of up to {cut.size} pixels may be {most:,} tokens, more than {MAX_TOKENS:,}: "
            "take fewer or smaller frames"
        )
