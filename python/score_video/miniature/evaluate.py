"""Scores anything that picks tokens on freshly made videos of the miniature world."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

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
    Partition,
)
from score_video.policy import SurprisePolicy
from score_video.rl.accuracy import Accuracy as Accuracy
from score_video.rl.accuracy import Choose as Choose
from score_video.rl.accuracy import budgets as budgets
from score_video.rl.accuracy import choose_by as choose_by
from score_video.rl.accuracy import evaluate as evaluate
from score_video.rl.accuracy import evaluate_counts as evaluate_counts
from score_video.rl.accuracy import share_equally
from score_video.rl.environment import EncodedBatch


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


def choose_by_policy(policy: SurprisePolicy, selection: AnySelection | None = None) -> Choose:
    """What a policy keeps: selected by its logits, as a :class:`~score_video.Compressor` does."""
    return choose_by(Compressor(policy, selection=selection))


def choose_by_method(name: str, selection: AnySelection | None = None, seed: int = 0) -> Choose:
    """What a training-free method keeps, or the oracle (:func:`oracle`).

    Args:
        name: a key of :data:`score_video.methods.METHODS`, or "oracle".
        selection: how a method that is a score picks; None: topk. Refused by all others.
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
    there = torch.cat([there, (shown[:, BACKGROUND] >= 12).float()[:, None]], 1)
    return share_equally(there, videos, keep)
