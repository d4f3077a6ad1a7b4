"""Scores anything that picks tokens on the semi-real world's videos, and shows what it does and does not see."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import score_ext
from score_video.composite.dropping import LIVE_PIXELS, SHOWN_PIXELS
from score_video.composite.environment import CompositeEnvironment
from score_video.composite.world import (
    FIRST_FLASH,
    FIRST_LANDMARK,
    FIRST_MARK,
    NOT_ASKED,
    TASK_NAMES,
    TOKENS,
)
from score_video.miniature.evaluate import Choose
from score_video.miniature.evaluate import choose_by as choose_by
from score_video.rl import rollouts
from score_video.rl.environment import EncodedBatch, Selection
from score_video.statistics import ratio_error


@dataclass(frozen=True)
class Accuracy:
    """What was answered rightly.

    Attributes:
        results: int8 [V, tasks]: 1 right, 0 wrong, NOT_ASKED.
        flashes: share of the videos with a flash of which a token that shows it was kept.
    """

    results: Tensor
    flashes: float

    @property
    def mean(self) -> float:
        """Share of all questions answered rightly, 0 to 1."""
        return int((self.results == 1).sum()) / int((self.results != NOT_ASKED).sum())

    @property
    def by_task(self) -> dict[str, float]:
        """The same for each task."""
        right, asked = (self.results == 1).sum(0), (self.results != NOT_ASKED).sum(0)
        return {name: int(r) / max(1, int(n)) for name, r, n in zip(TASK_NAMES, right, asked, strict=True)}

    def ahead_of(self, other: Accuracy) -> tuple[float, float]:
        """Difference of the two means on the same videos, and its standard error over them."""
        asked = (self.results != NOT_ASKED).sum(1)
        difference = (self.results == 1).sum(1) - (other.results == 1).sum(1)
        return int(difference.sum()) / int(asked.sum()), ratio_error(difference, asked)


def evaluate(environment: CompositeEnvironment, choose: Choose | None, retention: float = 1.0) -> Accuracy:
    """Accuracy of the reader on what ``choose`` keeps of every video; on all tokens where it is None."""
    results, seen, flashes = [], 0, 0
    for batch in environment.batches():
        if choose is None:
            index = torch.arange(len(batch.videos.tokens))
            best = environment.full_log_probabilities(batch).argmax(2)
        else:
            keep = rollouts.budgets(batch.videos, retention)
            index = choose(batch, keep)
            best = environment.log_probabilities(batch, Selection(index, keep[None]))[0].argmax(2)
        own = batch.payload.features
        results.append((best == own.answers).to(torch.int8).masked_fill_(own.answers == NOT_ASKED, NOT_ASKED))
        showing = _flashing(batch)
        flashes += int(showing.view(-1, TOKENS).any(1).sum())
        kept = torch.zeros(len(showing), dtype=torch.bool).index_fill_(0, index, True)
        seen += int((showing & kept).view(-1, TOKENS).any(1).sum())
    return Accuracy(torch.cat(results), seen / max(1, flashes))


def oracle(batch: EncodedBatch, keep: Tensor) -> Tensor:
    """Picks by what the generator knows: every thing that is asked about gets an equal share, spread over its tokens.

    An upper mark to look at, not a bound: it knows what was put where, not how the reader combines it.
    """
    features, videos = batch.payload.features, batch.videos
    there = (features.shown.flatten(0, 1) >= SHOWN_PIXELS).float()
    alive = (features.live.flatten() >= LIVE_PIXELS).float()[:, None]
    landmarks = there[:, FIRST_LANDMARK:FIRST_MARK]
    moving = torch.cat([there[:, :FIRST_LANDMARK], there[:, FIRST_MARK:]], 1) * alive
    scene = (features.shown.flatten(0, 1).sum(1) == 0).float()[:, None]
    things = torch.cat([moving, landmarks, scene], 1)  # [L, symbols + 1]
    totals = torch.zeros(videos.num_videos, things.shape[1]).index_add_(0, videos.video_of_token, things)
    shares = (things / totals.clamp(min=1)[videos.video_of_token]).amax(1)
    return score_ext.select(shares.clamp(min=1e-9).log(), videos.cu_seqlens, keep, selection="systematic")


def _flashing(batch: EncodedBatch) -> Tensor:
    """bool [L]: the token shows what is seen in one frame alone."""
    features = batch.payload.features
    flashes = (features.shown[..., FIRST_FLASH:FIRST_LANDMARK] >= SHOWN_PIXELS).any(2)
    showing: Tensor = (flashes & (features.live >= LIVE_PIXELS)).flatten()
    return showing
