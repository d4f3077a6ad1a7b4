"""``python -m evaluation.partial_towers READERS...``: choosing before the tower in the miniature, as tables.

READERS are readers whose tower is a ViT, evaluation/readers/vit-*.safetensors: in them a patch that is not seen changes
what the others become. Rules and policies choose from pixels; the tower sees what they chose alone, with one ring of
neighbours, or in whole frames, and the reader reads what was chosen. Two kinds of policy are trained on each reader:
one is rewarded for what is answered from whole frames, as one would be that knows nothing of the tower; the other for
what is answered from a tower that saw its choice alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from evaluation.report import at, head, row
from score_video.before_tower import with_halo
from score_video.command_line import run_module
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.miniature.environment import MiniatureEnvironment
from score_video.miniature.evaluate import encode_split
from score_video.miniature.reader import Reader
from score_video.miniature.train_policy import TrainingExamples, train_policy, training_videos
from score_video.miniature.world import SIZE
from score_video.packed import Selection
from score_video.provenance import circumstances
from score_video.rl.accuracy import budgets, choose_by, evaluate
from score_video.rl.environment import EncodedBatch
from score_video.rl.multiple_choice import ReaderEnvironment
from score_video.statistics import Answers

RETENTIONS = (0.02, 0.05, 0.1, 0.2)
SPLITS = ("plain", "lookalike", "density")
WHOLE, RING, ALONE = "whole frames", "halo 1", "what is chosen alone"
HALOS = {WHOLE: SIZE, RING: 1, ALONE: 0}
"""What the tower sees -> rings of neighbours; so many as the first fill any frame."""
AFTER, BEFORE = ("divprune-whitened", "pretrained"), ("evs-dithered", "divprune-whitened", "pretrained")
"""What chooses after the tower, and what before it."""
TEST_SEED = 2026
SETTINGS = {"retention": 0.05, "learning_rate": 0.003, "lr_scheduler_type": "linear"}
"""Of ScoreConfig, in every training."""


@dataclass(frozen=True)
class Setting:
    """A reader in one world, and environments in which its vision tower sees more or less of a video.

    Attributes:
        whole: the tower sees everything, and policies its features.
        after: videos of the test, encoded for ``whole``.
        tested: for each key of ``HALOS``, the environment in which the tower sees that much of what is chosen; policies
            see thumbnails.
        before: videos of the test, encoded for each of ``tested``.
        trained: as ``tested``, on videos to learn from.
        examples: makes the examples of ``trained``.
        recipe: a recipe of :func:`~score_video.miniature.train_policy.train_policy`, less its seed.
        rewarded: keys of ``HALOS`` for each of which policies are trained.
        retentions: at which everything is tested.
    """

    whole: ReaderEnvironment
    after: Sequence[EncodedBatch]
    tested: Mapping[str, ReaderEnvironment]
    before: Sequence[EncodedBatch]
    trained: Mapping[str, Any]
    examples: TrainingExamples
    recipe: Mapping[str, Any]
    rewarded: Sequence[str]
    retentions: Sequence[float]

    def policies(self, sees: str, seeds: int) -> Chooser:
        """Policies that are rewarded through a tower that sees that much."""
        trained = [
            train_policy({**self.recipe, "seed": seed}, [self.trained[sees]], self.examples)[0] for seed in range(seeds)
        ]
        return Chooser(f"policy trained with {sees}", [Compressor(policy) for policy in trained])


@dataclass(frozen=True)
class Chooser:
    """What chooses, of several seeds if it was trained."""

    name: str
    compressors: Sequence[Compressor]

    def answers(self, environment: ReaderEnvironment, batches: Sequence[EncodedBatch], retention: float) -> Answers:
        """What is answered from what it keeps."""
        every = [evaluate(environment, batches, choose_by(one), retention).answers for one in self.compressors]
        return replace(every[0], right=np.concatenate([answers.right for answers in every]))

    def patches(self, batches: Sequence[EncodedBatch], retention: float, halo: int) -> float:
        """Share of the patches that the tower sees, over the seeds."""
        seen = tokens = 0
        for batch, one in product(batches, self.compressors):
            kept: Selection = one.select(batch.videos, None, budgets(batch, retention).tolist())
            seen += len(with_halo(batch.videos, kept.index, halo))
            tokens += len(batch.videos.tokens)
        return seen / tokens


def lines(setting: Setting, seeds: int) -> Iterator[str]:
    """A reader's table, in Markdown, line by line."""
    retentions = setting.retentions
    yield head("chosen by", "the tower sees", f"of the patches at {at(0.1)}", [at(of) for of in retentions])
    on_all = evaluate(setting.whole, setting.after, None).answers
    yield row("all tokens", "everything", at(1), [on_all] * len(retentions))
    for name in AFTER:
        chooser = Chooser(name, [Compressor.from_pretrained(name)])
        found = [chooser.answers(setting.whole, setting.after, of) for of in retentions]
        yield row(f"{name}, after it", "everything", at(1), found)
    yield from (
        line for name in BEFORE for line in _lines_of(setting, Chooser(name, [Compressor.from_pretrained(name)]))
    )
    for sees in setting.rewarded:
        yield from _lines_of(setting, setting.policies(sees, seeds))


def _lines_of(setting: Setting, chooser: Chooser) -> Iterator[str]:
    """Of what chooses before the tower, one line for each that the tower sees."""
    found: Mapping[float, Answers] = {}
    for sees, environment in setting.tested.items():
        own = {of: chooser.answers(environment, setting.before, of) for of in setting.retentions}
        cells = [answers.minus(found[of]) if found else answers for of, answers in own.items()]
        yield row(chooser.name, sees, at(chooser.patches(setting.before, 0.1, HALOS[sees])), cells)
        found = found or own


def of_miniature(reader: Reader, videos: int, steps: int) -> Setting:
    """A reader of the miniature; so many videos of each split."""
    whole = MiniatureEnvironment(reader)
    seeing = {sees: MiniatureEnvironment(reader, pixels=True, halo=halo) for sees, halo in HALOS.items()}
    after, before = (
        [batch for split in SPLITS for batch in encode_split(environment, split, "test", TEST_SEED, videos)]
        for environment in (whole, seeing[WHOLE])
    )
    recipe = {
        "policy": {},
        "mixture": {"plain": 0.3, "lookalike": 0.5, "density": 0.2},
        "train_videos": 100_000,
        "settings": {**SETTINGS, "max_steps": steps},
    }
    return Setting(
        whole=whole,
        after=after,
        tested=seeing,
        before=before,
        trained=seeing,
        examples=training_videos,
        recipe=recipe,
        rewarded=(WHOLE, ALONE),
        retentions=RETENTIONS,
    )


def main(
    readers: Annotated[list[Path], typer.Argument(help="Readers whose vision tower is a ViT.")],
    videos: Annotated[int, typer.Option(help="Test videos of each of the three splits.", min=2)] = 192,
    steps: Annotated[int, typer.Option(help="Of the trainings.", min=1)] = 150,
    seeds: Annotated[int, typer.Option(help="Policies of each kind.", min=1)] = 3,
) -> None:
    """What choosing before a ViT costs in the miniature: accuracies in %; below, points above the first row of each."""
    torch.set_num_threads(1)
    print(", ".join(f"{name} {value}" for name, value in circumstances("torch", "transformers").items()))
    loaded = {path: Reader.load(path) for path in readers}
    for path, reader in loaded.items():
        if not reader.config.tower_attends:
            raise ScoreError(f"{path}: must have a ViT as its tower, to which it makes a difference what it sees")
    for path, reader in loaded.items():
        print(f"\n## {path.stem}\n", flush=True)
        for line in lines(of_miniature(reader, videos, steps), seeds):
            print(line, flush=True)


if __name__ == "__main__":
    run_module(main)
