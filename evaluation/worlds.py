"""The worlds that a study can be about, under one roof."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from evaluation.jobs import ROOT
from score_video.composite.environment import CompositeEnvironment, CompositeVideos
from score_video.composite.evaluate import oracle as composite_oracle
from score_video.composite.features import tower_of
from score_video.composite.reader import shipped_reader as composite_reader
from score_video.errors import ScoreError
from score_video.files import sha256_of
from score_video.miniature.environment import MiniatureEnvironment
from score_video.miniature.evaluate import encode_split
from score_video.miniature.evaluate import oracle as miniature_oracle
from score_video.miniature.train_policy import TrainingExamples, find_readers, training_videos
from score_video.rl.accuracy import Choose
from score_video.rl.environment import EncodedBatch


@dataclass(frozen=True)
class World:
    """What jobs need of a world.

    Attributes:
        readers: -> weights of its readers, by name; "shipped" is the one that comes with the package.
        environment: (a reader's weights, the media or None) -> what is trained on and asked, with ``token_width``; its
            method ``world`` is only for groups of kind counted.
        examples: makes what is learned from.
        test_batches: (environment, split, seed, number of videos) -> encoded, never learned from.
        oracle: chooses by what the generator put where.
        identify: (path of the media) -> what tells them from others, as the recipe has it.
    """

    readers: Callable[[], dict[str, Path]]
    environment: Callable[[Path, Path | None], Any]
    examples: TrainingExamples
    test_batches: Callable[[Any, str, int, int], list[EncodedBatch]]
    oracle: Choose
    identify: Callable[[Path], str]


def _composite_examples(split: str, seed: int, num_videos: int, one_question: bool) -> CompositeVideos:
    """Videos of the partition policy, whatever is tested; stills for a stage with that data. Raises ScoreError."""
    if split not in ("test", "still"):
        raise ScoreError(f"data of a stage must be still or video in the composite world, got {split!r}")
    return CompositeVideos(num_videos, still=split == "still")


WORLDS = {
    "miniature": World(
        readers=lambda: find_readers(ROOT / "evaluation" / "readers"),
        environment=MiniatureEnvironment,
        examples=training_videos,
        test_batches=lambda env, split, seed, count: encode_split(env, split, "test", seed, count),
        oracle=miniature_oracle,
        identify=sha256_of,
    ),
    "composite": World(
        readers=lambda: {"shipped": composite_reader()},
        environment=lambda reader, features: CompositeEnvironment(reader, cast(Path, features), "policy"),
        examples=_composite_examples,
        # of the partition that is called as the split; there is one set of videos, whatever the seed
        test_batches=lambda env, split, seed, count: list(env.of_partition(split, count).batches()),
        oracle=composite_oracle,
        identify=lambda features: tower_of(features, "test"),
    ),
}
"""By the name that recipes and jobs have for them."""
