"""Scores anything that picks tokens on freshly made videos of the miniature world."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import score_ext
from score_video.compressor import AnySelection, Compressor
from score_video.errors import ScoreError
from score_video.methods import IndexMethod, find_method, with_seed
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
from score_video.packed import Selector, needs_question
from score_video.policy import SurprisePolicy
from score_video.rl import rollouts
from score_video.rl.environment import EncodedBatch, Selection
from score_video.statistics import ratio_error

Choose = Callable[[EncodedBatch, Tensor], Tensor]
"""(encoded batch, keep int32 [B]) -> index int64 [K], ascending, exactly ``keep[b]`` rows of each video."""


@dataclass(frozen=True)
class Accuracy:
    """What was answered rightly.

    Attributes:
        results: int8 [V, tasks] for V videos, in the order of ``TASKS``: 1 right, 0 wrong, ``NOT_ASKED``.
        kept: tokens kept, of all videos together.
        tokens: tokens there were.
    """

    results: Tensor
    kept: int
    tokens: int

    @staticmethod
    def join(parts: Sequence[Accuracy]) -> Accuracy:
        """Of several batches of videos together."""
        results = torch.cat([part.results for part in parts])
        return Accuracy(results, sum(part.kept for part in parts), sum(part.tokens for part in parts))

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
        return int(self.right.sum()) / int(self.asked.sum())

    @property
    def standard_error(self) -> float:
        """Of :attr:`mean`, over videos (:func:`score_video.statistics.ratio_error`); NaN for a single video."""
        return ratio_error((self.results == 1).sum(1), (self.results != NOT_ASKED).sum(1))

    @property
    def by_task(self) -> dict[str, float]:
        """The same for each task that was asked."""
        return {
            task.name: int(right) / int(asked)
            for task, right, asked in zip(TASKS, self.right, self.asked, strict=True)
            if asked
        }


def batches_of_split(
    environment: MiniatureEnvironment,
    split: str,
    partition: Partition,
    seed: int,
    num_videos: int,
    one_question: bool = False,
) -> Iterator[EncodedBatch]:
    """Videos 0 to ``num_videos`` of a split after the vision tower, in batches of up to 64 (16 of long ones).

    Args:
        environment: makes the videos.
        split, partition, seed, num_videos, one_question: as for ``MiniatureVideos``.

    Raises:
        ValueError: as that and :meth:`~score_video.miniature.environment.MiniatureEnvironment.encode` do.
    """
    environment.world(split, partition, seed)  # refuses what there is not, before anything is made
    examples = MiniatureVideos(split, partition, seed, num_videos, one_question)
    size = 64 * 16 // SPLITS[split].frames
    for begin in range(0, num_videos, size):
        yield environment.encode([examples[number] for number in range(begin, min(begin + size, num_videos))])


def encode_split(
    environment: MiniatureEnvironment, split: str, partition: Partition, seed: int, num_videos: int
) -> list[EncodedBatch]:
    """As :func:`batches_of_split`, all at once, for evaluating several things on the same videos."""
    return list(batches_of_split(environment, split, partition, seed, num_videos))


def budgets(batch: EncodedBatch, retention: float) -> Tensor:
    """int32 [B], how many tokens each video keeps; raises ValueError for a retention outside (0, 1]."""
    return rollouts.budgets(batch.videos, retention)


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
    results = []
    for batch, keep in zip(batches, keeps, strict=True):
        if choose is None:
            best = environment.full_log_probabilities(batch).argmax(2)
        else:
            best = environment.log_probabilities(batch, Selection(choose(batch, keep), keep[None]))[0].argmax(2)
        answers = batch.payload.answers
        results.append((best == answers).to(torch.int8).masked_fill_(answers == NOT_ASKED, NOT_ASKED))
    tokens = sum(len(batch.videos.tokens) for batch in batches)
    return Accuracy(torch.cat(results), sum(int(keep.sum()) for keep in keeps), tokens)


def choose_by(selector: Selector) -> Choose:
    """What anything that selects keeps: a compressor, or an object of your own."""
    asks = needs_question(selector)

    def choose(batch: EncodedBatch, keep: Tensor) -> Tensor:
        return selector.select(batch.videos, batch.question if asks else None, keep.tolist()).index

    return choose


def choose_by_policy(policy: SurprisePolicy, selection: AnySelection | None = None) -> Choose:
    """What a policy keeps: selected by its logits, as a :class:`~score_video.Compressor` does."""
    return choose_by(Compressor(policy, selection=selection))


def choose_by_method(name: str, selection: AnySelection | None = None, seed: int = 0) -> Choose:
    """What a training-free method keeps, or the oracle (:func:`oracle`).

    Args:
        name: in :data:`score_video.methods.METHODS`, or "oracle".
        selection: for a method that is a score; None: topk. Refused by all others.
        seed: the seed of the method "random".

    Raises:
        ValueError: there is no such method, or it takes no selection.
    """
    if name == "oracle":
        if selection is not None:
            raise ScoreError(f"oracle selects by a rule of its own and takes no selection, got {selection!r}")
        return oracle
    if selection is not None and isinstance(find_method(name), IndexMethod):
        raise ScoreError(f"{name} selects by a rule of its own and takes no selection, got {selection!r}")
    return choose_by(Compressor(with_seed(name, seed), selection=selection))


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
    totals = there.new_zeros(videos.num_videos, there.shape[1]).index_add_(0, videos.video_of_token, there)
    shares = (there / totals.clamp(min=1)[videos.video_of_token]).amax(1)
    return score_ext.select(shares.clamp(min=1e-9).log(), videos.cu_seqlens, keep, selection="systematic")
