"""Makes policies by a recipe, through one frozen reader or several: those of the studies and of the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import ConcatDataset, Dataset

from score_video.before_tower import Gate
from score_video.miniature.environment import MiniatureVideos, shipped_reader
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.rl.environment import EncodedBatch, Environment, Example, Outcome, Selection, gate_of
from score_video.rl.unsaved import train_unsaved

METRICS = ("step", "reward", "accuracy", "kept_ratio")
"""Columns of the curve of a training."""

TrainingExamples = Callable[[str, int, int, bool], Dataset[Example]]
"""(split, or data of a stage of the curriculum; seed, how many, whether each asks one question alone) -> examples to
learn from."""


def training_videos(split: str, seed: int, num_videos: int, one_question: bool) -> MiniatureVideos:
    """Videos of the miniature to learn from; of the split "pseudo_video" stills, for that stage."""
    if split == "pseudo_video":
        return MiniatureVideos("static", "train", seed, num_videos, one_question, still=True)
    return MiniatureVideos(split, "train", seed, num_videos, one_question)


def train_policy(
    recipe: Mapping[str, Any], readers: Sequence[Any], examples: TrainingExamples = training_videos
) -> tuple[SurprisePolicy, list[list[float]]]:
    """A policy, frozen, and the curve of its training, rows of ``METRICS``.

    Args:
        recipe: ``seed``; ``policy``, its config; ``settings`` of ScoreConfig; ``mixture``, shares of splits;
            ``train_videos``, how many of all together; ``one_question``, whether each example asks one alone.
        readers: environments, at least one; with several, each batch is read by one of them.
        examples: makes those of a split.
    """
    seed, settings = recipe["seed"], recipe["settings"]
    torch.manual_seed(seed)
    width = readers[0].token_width if len(readers) == 1 else 0
    policy = SurprisePolicy(SurprisePolicyConfig(token_width=width, **recipe["policy"]))
    mixture, one_question = recipe["mixture"], recipe.get("one_question", False)
    shares = {split: share / sum(mixture.values()) for split, share in mixture.items()}
    counts = {split: round(share * recipe["train_videos"]) for split, share in shares.items()}
    videos: Any = ConcatDataset([examples(split, seed, count, one_question) for split, count in counts.items()])
    named = {stage.get("data") or stage["name"] for stage in settings.get("stages") or []}
    if named - {"video"}:
        count = recipe["train_videos"]
        videos = {
            name: videos if name == "video" else examples(name, seed, count, one_question) for name in sorted(named)
        }
    environment: Environment = SeveralReaders(readers) if len(readers) > 1 else readers[0]
    logging_steps = max(1, settings["max_steps"] // 20)
    lines = train_unsaved(policy, environment, videos, seed=seed, logging_steps=logging_steps, **settings)
    return policy, [[round(line[name], 4) for name in METRICS] for line in lines]


@dataclass(frozen=True)
class SeveralReaders:
    """Several readers as one environment: each batch is read by one of them, drawn by its first example's number."""

    readers: Sequence[Environment]

    @property
    def gate(self) -> Gate | None:
        """Of the first reader; either all have one or none has."""
        return gate_of(self.readers[0])

    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        """See :class:`score_video.rl.environment.Environment`."""
        number = int(examples[0]["number"]) % len(self.readers)
        batch = self.readers[number].encode(examples)
        return EncodedBatch(batch.videos, (number, batch), batch.question, batch.seen)

    def answer(self, batch: EncodedBatch, selection: Selection, **asked: bool) -> Outcome:
        """See :class:`score_video.rl.environment.Environment`."""
        number, inner = batch.payload
        outcome: Outcome = self.readers[number].answer(inner, selection, **asked)
        return outcome


def fingerprint(name: str, identity: str) -> str:
    """How recipes name a file: another content is another name. ``identity``: its SHA-256, or what stands for it."""
    return f"{name}@{identity[:12]}"


def find_readers(folder: Path) -> dict[str, Path]:
    """Readers by name: "shipped", which comes with the package, and those of a folder, without their suffix."""
    return {"shipped": shipped_reader(), **{path.stem: path for path in sorted(folder.glob("*.safetensors"))}}
