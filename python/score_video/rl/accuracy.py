"""Scores anything that picks tokens by what a small frozen reader answers from the tokens that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

import score_ext
from score_video.compressor import Compressor
from score_video.packed import PackedVideos, Selector, needs_question
from score_video.rl import rollouts
from score_video.rl.environment import EncodedBatch, Selection
from score_video.rl.multiple_choice import NOT_ASKED, ReaderEnvironment
from score_video.statistics import Answers

Choose = Callable[[EncodedBatch, Tensor], Tensor]
"""(encoded batch, keep int32 [B]) -> index int64 [K], ascending: ``keep[b]`` rows of each video, or as many in all."""


@dataclass(frozen=True)
class Accuracy:
    """What was answered rightly.

    Attributes:
        results: int8 [V, tasks] for V videos: 1 right, 0 wrong, ``NOT_ASKED``.
        kept: tokens kept, of all videos together.
        tokens: tokens there were.
        task_names: in the order of ``results``.
    """

    results: Tensor
    kept: int
    tokens: int
    task_names: Sequence[str]

    @staticmethod
    def join(parts: Sequence[Accuracy]) -> Accuracy:
        """Of several batches of videos together."""
        results = torch.cat([part.results for part in parts])
        return Accuracy(
            results, sum(part.kept for part in parts), sum(part.tokens for part in parts), parts[0].task_names
        )

    @property
    def answers(self) -> Answers:
        """The same for statistics, as of one seed."""
        return Answers((self.results == 1)[None].numpy(), (self.results != NOT_ASKED).numpy())

    @property
    def right(self) -> Tensor:
        """int64 [tasks], questions answered rightly."""
        return (self.results == 1).sum(0)

    @property
    def asked(self) -> Tensor:
        """int64 [tasks], questions asked."""
        return (self.results != NOT_ASKED).sum(0)

    @property
    def mean(self) -> float:
        """Share of all questions answered rightly, 0 to 1."""
        return self.answers.accuracy

    @property
    def standard_error(self) -> float:
        """Of :attr:`mean`, over videos (:func:`score_video.statistics.ratio_error`); NaN for a single video."""
        return self.answers.standard_error

    @property
    def by_task(self) -> dict[str, float]:
        """The mean of each task that was asked."""
        shares = zip(self.task_names, self.answers.by_task, self.asked, strict=True)
        return {name: share for name, share, asked in shares if asked}


def budgets(batch: EncodedBatch, retention: float) -> Tensor:
    """int32 [B], how many tokens each video keeps; raises ValueError for a retention outside (0, 1]."""
    return rollouts.budgets(batch.videos, retention)


def evaluate(
    environment: ReaderEnvironment, batches: Iterable[EncodedBatch], choose: Choose | None, retention: float = 1.0
) -> Accuracy:
    """Accuracy of the reader on what ``choose`` keeps; on all tokens where it is None.

    Args:
        environment: has the reader that answers.
        batches: that it encoded, at least one; looked at one after another, and once.
        choose: what picks.
        retention: fraction of the tokens of each video that it keeps.
    """
    return Accuracy.join([_of_batch(environment, batch, choose, budgets(batch, retention)) for batch in batches])


def evaluate_counts(
    environment: ReaderEnvironment, batches: Iterable[EncodedBatch], choose: Choose, keeps: Iterable[Tensor]
) -> Accuracy:
    """As :func:`evaluate`, at any number of tokens for each video: int32 [B] for each batch."""
    return Accuracy.join(
        [_of_batch(environment, batch, choose, keep) for batch, keep in zip(batches, keeps, strict=True)]
    )


def _of_batch(environment: ReaderEnvironment, batch: EncodedBatch, choose: Choose | None, keep: Tensor) -> Accuracy:
    if choose is None:
        keep = batch.videos.lengths
        log_p = environment.full_log_probabilities(batch)
    else:
        index = choose(batch, keep)
        of_each = torch.bincount(batch.videos.video_of_token[index], minlength=len(keep)).int()
        log_p = environment.log_probabilities(batch, Selection(index, of_each[None]))[0]
    answers = batch.payload.answers
    results = (log_p.argmax(2) == answers).to(torch.int8).masked_fill_(answers == NOT_ASKED, NOT_ASKED)
    return Accuracy(results, int(keep.sum()), len(batch.videos.tokens), environment.task_names)


def choose_by(selector: Selector) -> Choose:
    """What anything that selects keeps: a compressor, or an object of your own; behind a gate, a compressor."""
    asks = needs_question(selector)

    def choose(batch: EncodedBatch, keep: Tensor) -> Tensor:
        question = batch.question if asks else None
        if batch.seen is None:
            return selector.select(batch.videos, question, keep.tolist()).index
        return cast(Compressor, selector).select_seen(batch.videos, batch.seen, question, keep.tolist()).index

    return choose


def share_equally(there: Tensor, videos: PackedVideos, keep: Tensor) -> Tensor:
    """What an oracle keeps: every thing gets an equal share, spread over its tokens.

    A token's inclusion probability is in proportion to the largest of its shares; selection is systematic. That knows
    what matters, not how a reader combines it: an upper mark to look at, not a bound.

    Args:
        there: float32 [L, things], 1 where a token shows the thing and 0 elsewhere.
        videos: B of them.
        keep: int32 [B], how many tokens each video keeps.

    Returns:
        index, int64 [K], ascending.
    """
    totals = there.new_zeros(videos.num_videos, there.shape[1]).index_add_(0, videos.video_of_token, there)
    shares = (there / totals.clamp(min=1)[videos.video_of_token]).amax(1)
    return score_ext.select(shares.clamp(min=1e-9).log(), videos.cu_seqlens, keep, selection="systematic")
