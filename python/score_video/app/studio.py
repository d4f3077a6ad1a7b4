"""What the server works with: the compressors it offers, where its tokens come from, and the clips it holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from score_video.app import decoding
from score_video.app.decoding import Cut
from score_video.app.encoded import (
    MAX_FRAMES,
    MAX_TOKENS,
    Encode,
    Encoded,
    Shelf,
    check_cut,
    encode_by_tower,
    encode_pixels,
)
from score_video.app.gate import PageGate, behind
from score_video.app.pages import ClipFile, Pages
from score_video.commands.options import PRETRAINED_NAME, Chosen, chosen_by_options
from score_video.errors import ScoreError
from score_video.methods import METHODS
from score_video.progress import Phases
from score_video.video.partial_tower import check_partial
from score_video.video.tower import load_tower

if TYPE_CHECKING:
    from score_video.app.answers import AnsweringModel  # it takes transformers, which pixels can do without

MAX_COLUMNS = 3
MAX_SECONDS = 3600.0
"""Of a clip."""


@dataclass(frozen=True)
class Source:
    """Where tokens come from.

    Attributes:
        kind: "pixels", "tower" or "model".
        name: the tower's or model's folder or id; "" for pixels.
        encode: makes tokens of frames; None: patches of pixels.
        model: what answers questions; None: nothing does.
        gate: what chooses before the tower; None: it sees everything.
        most_frames: of a clip; a tower's frames are of one size, so that what it makes of them is known before.
    """

    kind: str = "pixels"
    name: str = ""
    encode: Encode | None = None
    model: AnsweringModel | None = None
    gate: PageGate | None = None
    most_frames: int = MAX_FRAMES


def find_compressors(names: Sequence[str]) -> list[Chosen]:
    """What ``--compressor`` names: "pretrained", a method, "package.module:name", or a policy's folder or id.

    Raises:
        ScoreError, OSError: there is no such thing; one name twice.
    """
    found: list[Chosen] = []
    for name in names:
        if name in ("pretrained", PRETRAINED_NAME):
            chosen = chosen_by_options(None, None)
        elif name in METHODS or ":" in name:
            chosen = chosen_by_options(None, name)
        else:
            chosen = chosen_by_options(name, None)
        if any(chosen.name == other.name for other in found):
            raise ScoreError(f"--compressor must name each once, got {name} twice")
        found.append(chosen)
    return found


def find_source(
    tower: str | None,
    model: str | None = None,
    device: str | None = None,
    dtype: str = "auto",
    gate: PageGate | None = None,
) -> Source:
    """What ``--tower`` or ``--model`` names, loaded.

    Args:
        device, dtype: where the model runs and what its weights are, as for ``score ask``.
        gate: what chooses before the tower; None: it sees everything.

    Raises:
        ScoreError, OSError: both are given; a gate before no tower, or before one that cannot be run in part; a tower
            that makes more tokens of one frame than the page takes; or as
            :func:`score_video.video.tower.load_tower` and :func:`score_video.mllm.load.load_model`.
    """
    if tower is not None and model is not None:
        raise ScoreError("give --tower or --model, not both")
    chooses = None if gate is None else gate.gate
    if model is not None:
        from score_video.app.answers import AnsweringModel
        from score_video.commands.ask import DTYPES, find_device

        if dtype not in DTYPES:
            raise ScoreError(f"there is no dtype {dtype!r}; there are {', '.join(DTYPES)}")
        answering = AnsweringModel(model, find_device(device), DTYPES[dtype], chooses)
        return Source("model", model, answering.encode, answering, gate)
    if tower is None:
        if gate is not None:
            raise ScoreError(
                f"--before-tower {gate.chosen.name} needs --tower or --model: without one tokens are raw pixels, which "
                "cost nothing that could be saved"
            )
        return Source()
    loaded = load_tower(tower)
    if gate is not None:
        check_partial(loaded)
    per_frame = len(loaded.encode(np.zeros((1, loaded.height, loaded.width, 3), np.uint8)).tokens)
    if (most := MAX_TOKENS // per_frame) < 1:
        raise ScoreError(f"tower must make {MAX_TOKENS:,} tokens of a frame at most, {tower} makes {per_frame:,}")
    encode = partial(encode_by_tower, loaded, chooses)
    return Source("tower", tower, encode, gate=gate, most_frames=min(most, MAX_FRAMES))


class Studio:
    """Shared by all pages. Its methods may be called from several threads."""

    def __init__(self, given: Sequence[Chosen] = (), source: Source | None = None, *, max_bytes: int = 2**28) -> None:
        """given: compressors besides those that are always there; the first three of them are shown first.
        max_bytes: largest upload that is taken, in bytes."""
        self.source = source or Source()
        self._chosen: dict[str, Chosen] = {}
        self._notes: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        for chosen in given:
            self._add(chosen)
        self._first = list(self._chosen)[:MAX_COLUMNS] or [PRETRAINED_NAME, "evs"]
        for name in (PRETRAINED_NAME, *METHODS):
            if name not in self._chosen:
                try:
                    self._add(chosen_by_options(None, None if name == PRETRAINED_NAME else name))
                except ScoreError as error:  # it cannot stand behind the gate
                    self._refused[name] = str(error)
        if self.source.model is not None:
            for chosen in given:
                self.source.model.check(chosen)
        self.shelf = Shelf()
        self.pages = Pages(max_bytes, self.shelf.drop_clip)

    def _add(self, chosen: Chosen) -> None:
        """Offers a compressor. Raises ScoreError where it cannot stand behind the gate."""
        if self.source.gate is not None:
            chosen, note = behind(chosen, self.source.gate)
            self._notes |= {chosen.name: note} if note else {}
        self._chosen[chosen.name] = chosen

    @property
    def most_retention(self) -> float:
        """What can be kept at most: what is let through before the tower."""
        return 1.0 if self.source.gate is None else self.source.gate.retention

    def offer(self) -> dict[str, Any]:
        """What the page can choose from, as JSON."""
        gate = self.source.gate
        return {
            "compressors": list(self._chosen),
            "notes": self._notes,
            "refused": self._refused,
            "gate": gate and {"name": gate.chosen.name, "retention": gate.retention, "halo": gate.halo},
            "first": self._first,
            "examples": [{"clip": clip.key, "name": clip.name, "credit": clip.credit} for clip in self.pages.examples],
            "source": {"kind": self.source.kind, "name": self.source.name},
            "frames": self.first_cut.frames,
            "mostFrames": self.source.most_frames,
            "maxBytes": self.pages.max_bytes,
            "questions": self.source.model is not None,
        }

    @property
    def first(self) -> Chosen:
        """What is shown first of all."""
        return self._chosen[self._first[0]]

    def chosen(self, name: str) -> Chosen:
        """The compressor of that name. Raises ScoreError."""
        if name not in self._chosen:
            raise ScoreError(f"there is no compressor {name!r:.80} here")
        return self._chosen[name]

    @property
    def first_cut(self) -> Cut:
        """How the first clip is cut: half as many frames, and half again, until they are not too many."""
        usual = Cut()
        frames = usual.frames
        while frames > self.source.most_frames:
            frames //= 2
        return self.cut(frames, usual.size, usual.patch)

    def cut(self, frames: int, size: int, patch: int) -> Cut:
        """As the page asks for it; a tower or a model cuts its patches itself. Raises ScoreError."""
        cut = Cut(frames, size, patch)
        check_cut(cut, by_patches=self.source.kind != "tower")  # a tower's own size decides, not the frames'
        if frames > (most := self.source.most_frames):
            raise ScoreError(
                f"frames must be {most} at most, got {frames}: more would be above {MAX_TOKENS:,} tokens of "
                f"{self.source.name}"
            )
        return replace(cut, patch={"pixels": patch, "tower": 1, "model": 0}[self.source.kind])

    def encode(self, clip: ClipFile, cut: Cut) -> Encoded:
        """Frames and tokens of a clip, from the shelf where they are there.

        Raises:
            ScoreError: the clip cannot be used.
        """
        if (known := self.shelf.get((clip.key, cut))) is not None:
            return known
        phases = Phases()
        with phases("decode"):
            sampled = decoding.sample(clip.path, cut) if clip.trusted else decoding.read(clip.path, cut)
        if sampled.source.duration > MAX_SECONDS:
            raise ScoreError(
                f"the clip is {sampled.source.duration / 60:.0f} minutes long: take one of at most an hour"
            )
        make: Encode = self.source.encode or partial(encode_pixels, patch=cut.patch)
        made = make(sampled, phases)
        if (count := len(made.videos.tokens)) > MAX_TOKENS:
            raise ScoreError(f"the clip makes {count:,} tokens, more than {MAX_TOKENS:,}: take fewer frames")
        times = dict(phases.milliseconds)
        encoded = Encoded(clip.key, clip.name, cut, made.sampled, made.videos, times, made.extra, made.seen)
        self.shelf.put((clip.key, cut), encoded)
        if not clip.path.exists():  # its page was closed meanwhile
            self.shelf.drop_clip(clip.key)
        return encoded
