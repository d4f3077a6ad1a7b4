"""One compressor's choices among the tokens of one video, at any retention: what does not depend on it is found once.

What is kept is bit for bit what :meth:`score_video.Compressor.select` keeps; behind a choice before the vision tower
what :meth:`score_video.Compressor.select_seen` keeps.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

import torch
from torch import Tensor

import score_ext
from score_ext.budget import keep_count
from score_video.before_tower import Seen, only
from score_video.commands.options import Chosen
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.methods import METHODS, ScoreMethod, frame_budgets, vidcom2_measures
from score_video.packed import PackedVideos, Selection
from score_video.policy import SurprisePolicy

CONSTANT_SCORES = ("surprise", "surprise-l2", "norm")
"""Methods whose scores are the same at every budget."""


@dataclass(frozen=True)
class Choice:
    """What is kept at a retention.

    Attributes:
        index: int64 [K], ascending rows.
        milliseconds: what choosing took.
        first: whether that was the first time, with what is found once.
    """

    index: Tensor
    milliseconds: float
    first: bool


@dataclass(frozen=True)
class PatchFacts:
    """Of one token: what it was judged by, and its place when all that can be kept are put in that order, from 1; None
    where the rule has no such number, or the token cannot be kept."""

    score: float | None
    rank: int | None


class Chooser:
    """A compressor and a video. Threads may share it; they wait for each other."""

    def __init__(
        self, chosen: Chosen, videos: PackedVideos, question: Tensor | None = None, seen: Seen | None = None
    ) -> None:
        """question: [1, E], for what looks at it. seen: what a tower has seen of the video, which alone can be kept;
        None: everything."""
        self.name = chosen.name
        self._compressor = chosen.compressor
        self._videos = videos
        self._question = question
        self._seen = seen
        self._left = videos if seen is None else only(videos, seen.kept)  # M tokens, what can be kept
        self._per_frame = int(videos.tokens_per_frame[0])
        self._lock = threading.Lock()
        self._scores: Tensor | None = None  # [M]
        self._order: Tensor | None = None  # of divprune, as far as it was asked for
        self._vidcom2: tuple[Tensor, list[float]] | None = None
        self._used = False

    @property
    def video(self) -> PackedVideos:
        """One."""
        return self._videos

    def at(self, retention: float) -> Choice:
        """What is kept of a fraction; in (0, 1]."""
        compressor = replace(self._compressor, retention=retention)  # refuses what is no fraction
        start = time.perf_counter()
        with self._lock, torch.inference_mode():
            first, self._used = not self._used, True
            index = self._index(compressor, retention)
        return Choice(index.cpu(), (time.perf_counter() - start) * 1000, first)

    def patch(self, row: int, retention: float) -> PatchFacts:
        """Of one token, a row of the video. A score may depend on the retention (EVS's does)."""
        if not 0 <= row < len(self._videos.tokens):
            raise ScoreError(f"row must be 0 to {len(self._videos.tokens) - 1}, got {row}")
        self.at(retention)
        with self._lock, torch.inference_mode():
            if self._seen is not None:  # its number among what the gate let through
                own = (self._seen.kept.index == row).nonzero()
                if not len(own):
                    return PatchFacts(None, None)
                row = int(own[0, 0])
            if self._order is not None:
                place = (self._order[: self._count(retention)] == row).nonzero()
                return PatchFacts(None, int(place[0, 0]) + 1 if len(place) else None)
            scores = self._scores
            method = METHODS.get(self._compressor.method) if isinstance(self._compressor.method, str) else None
            if scores is None and isinstance(method, ScoreMethod):
                scores = self._of_left(method.scores(*self._packed(retention)))
            if scores is None:
                return PatchFacts(None, None)
            score = scores[row]
            # ties go to the lower row, as in score_ext.select
            before = int((scores > score).sum()) + int((scores[:row] == score).sum())
            return PatchFacts(float(score), before + 1)

    def _index(self, compressor: Compressor, retention: float) -> Tensor:
        method = compressor.method
        if isinstance(method, SurprisePolicy):
            if self._scores is None:
                self._scores = self._of_left(compressor.logits(self._videos, self._question, self._seen))
            return self._select(self._scores, retention, compressor)
        if method == "divprune":
            keep, count = self._keep(retention)
            if self._order is None or len(self._order) < count:
                left = self._left
                self._order = score_ext.divprune(left.tokens, left.cu_seqlens, keep, count, ordered=True)
            return self._rows(self._order[:count].sort().values)
        if method == "vidcom2":
            if self._vidcom2 is None:
                self._vidcom2 = vidcom2_measures(self._videos.tokens, self._per_frame)
            typicality, uniqueness = self._vidcom2
            return self._select_by_frame(-typicality, uniqueness, self._count(retention))
        if isinstance(method, str) and method in CONSTANT_SCORES:
            rule = METHODS[method]
            assert isinstance(rule, ScoreMethod)
            if self._scores is None:
                self._scores = self._of_left(rule.scores(*self._packed(retention)))
            if compressor.selection_used == "topk":
                return self._select(self._scores, retention, compressor)
        return compressor.select_seen(self._videos, self._seen, self._question).index

    def _select(self, scores: Tensor, retention: float, compressor: Compressor) -> Tensor:
        return self._rows(compressor.pick(self._left, scores, *self._keep(retention)))

    def _of_left(self, scores: Tensor) -> Tensor:
        """[L] -> [M]."""
        return scores if self._seen is None else scores[self._seen.kept.index]

    def _rows(self, index: Tensor) -> Tensor:
        """Rows of what can be kept -> rows of the video."""
        return index if self._seen is None else self._seen.kept.index[index]

    def _select_by_frame(self, scores: Tensor, uniqueness: list[float], count: int) -> Tensor:
        budgets = frame_budgets(uniqueness, self._per_frame, count)
        ends = torch.arange(0, len(scores) + 1, self._per_frame, dtype=torch.int32, device=scores.device)
        return score_ext.select(scores, ends, torch.tensor(budgets, dtype=torch.int32, device=scores.device), count)

    def _count(self, retention: float) -> int:
        count = keep_count(len(self._videos.tokens) // self._per_frame, self._per_frame, retention)
        return min(count, len(self._left.tokens))

    def _keep(self, retention: float) -> tuple[Tensor, int]:
        count = self._count(retention)
        return torch.tensor([count], dtype=torch.int32, device="cpu").to(self._videos.tokens.device), count

    def _packed(self, retention: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        videos = self._videos
        return videos.tokens, videos.cu_seqlens, videos.tokens_per_frame, self._keep(retention)[0]


def selection_of(choice: Choice, videos: PackedVideos) -> Selection:
    """The same, as models take it: on the device of the tokens."""
    device = videos.tokens.device
    keep = torch.tensor([len(choice.index)], dtype=torch.int32, device="cpu")
    return Selection(choice.index.to(device), keep.to(device))
