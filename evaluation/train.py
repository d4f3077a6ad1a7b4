"""Training a policy for the study, through ScoreTrainer."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import torch
from torch.utils.data import ConcatDataset, Dataset
from transformers.trainer_callback import PrinterCallback

from evaluation.jobs import Files
from score_video.composite.environment import CompositeEnvironment, CompositeVideos
from score_video.composite.evaluate import oracle as composite_oracle
from score_video.composite.world import Partition
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.miniature.evaluate import Choose, encode_split
from score_video.miniature.evaluate import oracle as miniature_oracle
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.rl.config import ScoreConfig
from score_video.rl.environment import EncodedBatch, Environment, Example, Outcome, Selection
from score_video.rl.trainer import ScoreTrainer

METRICS = ("step", "reward", "accuracy", "kept_ratio")


@dataclass(frozen=True)
class World:
    """What jobs need of a world; :mod:`evaluation.work` says ``env`` to what the first makes.

    Attributes:
        environment: (a reader's weights, a clip or features or None) -> what is trained on and asked, with the methods
            and ``token_width`` of :class:`MiniatureEnvironment`; ``world`` alone is only for groups of kind counted.
        examples: (split, seed, number of videos, whether each asks one question alone) -> what is learned from.
        test_batches: (env, split, seed, number of videos) -> encoded, never learned from; their payloads have
            ``answers``, int64 [B, tasks].
        oracle: chooses by what the generator put where.
    """

    environment: Callable[[Path, Path | None], Any]
    examples: Callable[[str, int, int, bool], Dataset[Example]]
    test_batches: Callable[[Any, str, int, int], list[EncodedBatch]]
    oracle: Choose


def _composite_batches(env: CompositeEnvironment, split: str, seed: int, count: int) -> list[EncodedBatch]:
    """Of the partition that is called as the split; there is one set of videos, whatever the seed."""
    return list(CompositeEnvironment(env.reader, env.folder, cast(Partition, split), count).batches())


WORLDS = {
    "miniature": World(
        MiniatureEnvironment,
        lambda split, seed, count, one_question: MiniatureVideos(split, "train", seed, count, one_question),
        lambda env, split, seed, count: encode_split(env, split, "test", seed, count),
        miniature_oracle,
    ),
    "composite": World(
        lambda reader, features: CompositeEnvironment(reader, cast(Path, features), "policy"),
        lambda split, seed, count, one_question: CompositeVideos(count),
        _composite_batches,
        composite_oracle,
    ),
}
"""By the name that a job has as its environment."""


@lru_cache(maxsize=16)
def environment(name: str, reader: Path, beside: Path | None = None) -> Any:
    """That of one of ``WORLDS``; made once in a process."""
    return WORLDS[name].environment(reader, beside)


def media(files: Files, parameters: Mapping[str, Any]) -> Path | None:
    """The clip or the features that parameters name, if they name one."""
    named = parameters.get("footage") or parameters.get("features")
    return files[named] if named else None


def train(files: Files, training: Mapping[str, Any]) -> tuple[SurprisePolicy, list[list[float]]]:
    """A policy, as the jobs of :class:`evaluation.experiments.Plan` describe it; and its curve, rows of ``METRICS``."""
    beside = media(files, training)
    readers = [environment(training["environment"], files[reader], beside) for reader in training["readers"]]
    seed, settings = training["seed"], training["settings"]
    torch.manual_seed(seed)
    width = readers[0].token_width if len(readers) == 1 else 0
    policy = SurprisePolicy(SurprisePolicyConfig(token_width=width, **training["policy"]))
    mixture, one_question = training["mixture"], training.get("one_question", False)
    shares = {split: share / sum(mixture.values()) for split, share in mixture.items()}
    counts = {split: round(share * training["train_videos"]) for split, share in shares.items()}
    world = WORLDS[training["environment"]]
    videos: Any = ConcatDataset([world.examples(split, seed, count, one_question) for split, count in counts.items()])
    env: Environment = SeveralReaders(readers) if len(readers) > 1 else readers[0]
    if any(stage["name"] == "pseudo_video" for stage in settings.get("stages") or []):
        videos = {"video": videos, "pseudo_video": MiniatureVideos("static", "train", seed, 100_000, still=True)}
    with tempfile.TemporaryDirectory() as folder:
        config = ScoreConfig(
            output_dir=folder,
            seed=seed,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
            save_strategy="no",
            logging_steps=max(1, settings["max_steps"] // 20),
            **settings,
        )
        trainer = ScoreTrainer(policy, env, config, videos)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    lines = [line for line in trainer.state.log_history if "reward" in line]
    policy.eval()
    return policy, [[round(line[name], 4) for name in METRICS] for line in lines]


@dataclass(frozen=True)
class SeveralReaders:
    """Several readers as one environment: each batch is read by one of them, drawn by its first example's number."""

    readers: Sequence[MiniatureEnvironment]

    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        """See :class:`score_video.rl.environment.Environment`."""
        number = int(examples[0]["number"]) % len(self.readers)
        batch = self.readers[number].encode(examples)
        return EncodedBatch(batch.videos, (number, batch), batch.question)

    def answer(self, batch: EncodedBatch, selection: Selection, **asked: bool) -> Outcome:
        """See :class:`score_video.rl.environment.Environment`."""
        number, inner = batch.payload
        outcome: Outcome = self.readers[number].answer(inner, selection, **asked)
        return outcome
