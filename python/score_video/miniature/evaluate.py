"""Scores anything that picks tokens on freshly made videos of the miniature world: what ``score eval`` calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import score_ext
from score_ext.budget import keep_count
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.miniature.world import (
    BACKGROUND,
    CROSS,
    DISC,
    FLASH,
    GLYPH,
    NOT_ASKED,
    PARKED_DISC,
    SPLITS,
    SQUARE,
    TASK_NAMES,
    TASKS,
    Partition,
)
from score_video.rl.environment import EncodedBatch, Selection

Choose = Callable[[EncodedBatch, Tensor], Tensor]
"""(encoded batch, keep int32 [B]) -> index int64 [K], ascending, exactly ``keep[b]`` rows of each video."""


@dataclass(frozen=True)
class Accuracy:
    """Questions answered rightly, task by task.

    Attributes:
        right, asked: int64 [tasks], in the order of ``TASKS``.
        kept: tokens kept, of all videos together.
        tokens: tokens there were.
    """

    right: Tensor
    asked: Tensor
    kept: int
    tokens: int

    @property
    def mean(self) -> float:
        """Share of all questions answered rightly, 0 to 1."""
        return float(self.right.sum() / self.asked.sum())

    @property
    def by_task(self) -> dict[str, float]:
        """The same for each task that was asked."""
        return {
            task.name: float(right / asked)
            for task, right, asked in zip(TASKS, self.right, self.asked, strict=True)
            if asked
        }


def encode_split(
    environment: MiniatureEnvironment, split: str, partition: Partition, seed: int, num_videos: int
) -> list[EncodedBatch]:
    """Videos 0 to ``num_videos`` of a split after the vision tower, in batches of up to 64 (16 of long ones)."""
    examples = MiniatureVideos(split, partition, seed, num_videos)
    size = 64 * 16 // SPLITS[split].frames
    return [
        environment.encode([examples[number] for number in range(begin, min(begin + size, num_videos))])
        for begin in range(0, num_videos, size)
    ]


def budgets(batch: EncodedBatch, retention: float) -> Tensor:
    """int32 [B], how many tokens each video keeps; raises ValueError for a retention outside (0, 1]."""
    videos = batch.videos
    sizes = zip(videos.lengths.tolist(), videos.tokens_per_frame.tolist(), strict=True)
    return torch.tensor([keep_count(length // n, n, retention) for length, n in sizes], dtype=torch.int32)


def evaluate(
    environment: MiniatureEnvironment, batches: Sequence[EncodedBatch], choose: Choose | None, retention: float = 1.0
) -> Accuracy:
    """Accuracy of the reader on what ``choose`` keeps; on all tokens where it is None."""
    keeps = [batch.videos.lengths if choose is None else budgets(batch, retention) for batch in batches]
    return evaluate_counts(environment, batches, choose, keeps)


def evaluate_counts(
    environment: MiniatureEnvironment, batches: Sequence[EncodedBatch], choose: Choose | None, keeps: Sequence[Tensor]
) -> Accuracy:
    """As :func:`evaluate`, at any number of tokens for each video: int32 [B] for each batch."""
    right = torch.zeros(len(TASKS), dtype=torch.int64)
    asked = torch.zeros_like(right)
    for batch, keep in zip(batches, keeps, strict=True):
        if choose is None:
            best = environment.full_log_probabilities(batch).argmax(2)
        else:
            best = environment.log_probabilities(batch, Selection(choose(batch, keep), keep[None]))[0].argmax(2)
        answers = batch.payload.answers
        right += ((best == answers) & (answers != NOT_ASKED)).sum(0)
        asked += (answers != NOT_ASKED).sum(0)
    tokens = sum(len(batch.videos.tokens) for batch in batches)
    return Accuracy(right, asked, sum(int(keep.sum()) for keep in keeps), tokens)


def oracle(batch: EncodedBatch, keep: Tensor) -> Tensor:
    """Picks by what the generator knows: every thing that is asked about gets an equal share, spread over its tokens.

    The things are the moving squares and disc, diamond and cross while they flash, the glyph, the disc of a still, and
    the background (its hue). A token's inclusion probability is in proportion to the largest of its shares; selection
    is systematic. It knows what matters, not how the reader combines it: an upper mark to look at, not a bound.
    """
    videos = batch.videos
    shown = batch.payload.shown
    still = (batch.payload.answers[:, TASK_NAMES.index("quadrant")] != NOT_ASKED)[videos.video_of_token]
    things = [*range(SQUARE, SQUARE + 4), DISC, CROSS, FLASH, GLYPH]
    there = (shown[:, things] >= 4).float()
    there = torch.cat([there, ((shown[:, PARKED_DISC] >= 4) & still).float()[:, None]], 1)
    there = torch.cat([there, (shown[:, BACKGROUND] >= 12).float()[:, None]], 1)  # [L, things]
    totals = torch.zeros(videos.num_videos, there.shape[1]).index_add_(0, videos.video_of_token, there)
    shares = (there / totals.clamp(min=1)[videos.video_of_token]).amax(1)
    return score_ext.select(shares.clamp(min=1e-9).log(), videos.cu_seqlens, keep, int(keep.sum()), "systematic")
