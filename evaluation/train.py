"""Training a policy for the study, through ScoreTrainer."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset
from transformers.trainer_callback import PrinterCallback

from evaluation.jobs import Files
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.rl.config import ScoreConfig
from score_video.rl.environment import EncodedBatch, Environment, Example, Outcome, Selection
from score_video.rl.trainer import ScoreTrainer

# As many videos or fewer are encoded once and kept, as users would who have few
ENCODED_ONCE = 2048
_BATCH = 32
METRICS = ("step", "reward", "accuracy", "kept_ratio")


def environment(files: Files, reader: str, footage: str | None = None) -> MiniatureEnvironment:
    """The reader and the footage of those fingerprints; read once in a process."""
    return _environment(files.readers[reader], None if footage is None else files.footage[footage])


_environment = lru_cache(maxsize=16)(MiniatureEnvironment)


def train(files: Files, training: Mapping[str, Any]) -> tuple[SurprisePolicy, list[list[float]]]:
    """A policy, as :meth:`evaluation.experiments.Plan.training` describes it; and its curve, rows of ``METRICS``."""
    readers = [environment(files, reader) for reader in training["readers"]]
    seed, settings = training["seed"], training["settings"]
    torch.manual_seed(seed)
    width = readers[0].token_width if len(readers) == 1 else 0
    policy = SurprisePolicy(SurprisePolicyConfig(token_width=width, **training["policy"]))
    one_question = training.get("one_question", False)
    videos: Any = _videos(training["mixture"], seed, training["train_videos"], one_question)
    env: Environment
    if len(readers) > 1:
        env = SeveralReaders(readers)
    elif training["train_videos"] <= ENCODED_ONCE and not one_question:
        env = _encoded_once(readers[0], tuple(training["mixture"].items()), training["train_videos"], seed)
    else:
        env = readers[0]
    if any(stage["name"] == "pseudo_video" for stage in settings.get("stages", [])):
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


def _videos(mixture: Mapping[str, float], seed: int, videos: int, one_question: bool = False) -> Dataset[Example]:
    total = sum(mixture.values())
    counts = {split: round(share / total * videos) for split, share in mixture.items()}
    return ConcatDataset([MiniatureVideos(split, "train", seed, n, one_question) for split, n in counts.items()])


@dataclass(frozen=True)
class EncodedOnce:
    """An environment whose training videos have all been encoded.

    Attributes:
        inner: the environment itself.
        encoded: by split and number: tokens [T, rows, columns, D], answers [tasks], and what is shown [L, things].
    """

    inner: MiniatureEnvironment
    encoded: Mapping[tuple[str, int], tuple[Tensor, Tensor, Tensor]]

    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        """See :class:`score_video.rl.environment.Environment`."""
        if any("frames" in example for example in examples):  # pseudo-videos are new every time
            return self.inner.encode(examples)
        parts = [self.encoded[example["split"], example["number"]] for example in examples]
        videos, answers, shown = zip(*parts, strict=True)
        return self.inner.batch(videos, torch.stack(answers), torch.cat(shown))

    def answer(self, batch: EncodedBatch, selection: Selection, *, divergence: bool = False) -> Outcome:
        """See :class:`score_video.rl.environment.Environment`."""
        return self.inner.answer(batch, selection, divergence=divergence)


@lru_cache(maxsize=4)
def _encoded_once(
    env: MiniatureEnvironment, mixture: tuple[tuple[str, float], ...], train_videos: int, seed: int
) -> EncodedOnce:
    data: Any = _videos(dict(mixture), seed, train_videos)
    encoded = {}
    # always in the same batches: in the last bit, tokens depend on what else is encoded with them
    for begin in range(0, len(data), _BATCH):
        examples = [data[number] for number in range(begin, min(begin + _BATCH, len(data)))]
        batch = env.encode(examples)
        lengths = batch.videos.lengths.tolist()
        columns = env.reader.config.columns
        tokens = torch.split(batch.videos.tokens, lengths)
        shown = torch.split(batch.payload.shown, lengths)
        for number, example in enumerate(examples):
            video = tokens[number].view(-1, columns, columns, env.token_width)
            encoded[example["split"], example["number"]] = video, batch.payload.answers[number], shown[number]
    return EncodedOnce(env, encoded)


@dataclass(frozen=True)
class SeveralReaders:
    """Several readers as one environment: each batch is read by one of them, drawn by its first example's number."""

    readers: Sequence[MiniatureEnvironment]

    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        """See :class:`score_video.rl.environment.Environment`."""
        number = int(examples[0]["number"]) % len(self.readers)
        batch = self.readers[number].encode(examples)
        return EncodedBatch(batch.videos, (number, batch), batch.question)

    def answer(self, batch: EncodedBatch, selection: Selection, *, divergence: bool = False) -> Outcome:
        """See :class:`score_video.rl.environment.Environment`."""
        number, inner = batch.payload
        outcome: Outcome = self.readers[number].answer(inner, selection, divergence=divergence)
        return outcome
