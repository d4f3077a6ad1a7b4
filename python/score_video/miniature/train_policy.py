"""Makes policies by a recipe; ``python -m score_video.miniature.train_policy`` makes that of the package.

Its recipe is beside its weights, score_video/policy/pretrained/recipe.json, and is the study's policy "never seen" of
the first seed; so what is shipped is what docs/results.md measures on towers that it never saw (to rounding: another
processor adds up in another order).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.utils.data import ConcatDataset, Dataset

from score_video.before_tower import Gate
from score_video.command_line import run_module
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.files import sha256_of
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos, shipped_reader
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.policy.pretrained import BEHIND_GATE, PRETRAINED
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


def gates_of(recipe: Mapping[str, Any]) -> list[Gate | None]:
    """What chooses before the tower of each of a recipe's readers: ``before_tower``, [rule, retention] each."""
    given = recipe.get("before_tower", [None] * len(recipe["readers"]))
    return [None if rule is None else Gate(Compressor(*rule), name=rule[0]) for rule in given]


def main(
    readers: Annotated[Path, typer.Argument(help="Folder of the other readers of the recipe: evaluation/readers.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the policy; weights in it are replaced. [default: in the package]")
    ] = None,
    behind_gate: Annotated[bool, typer.Option(help="The policy for behind a choice before the tower.")] = False,
) -> None:
    """Train a policy that comes with the package, for some minutes, and save it."""
    own = BEHIND_GATE if behind_gate else PRETRAINED
    recipe = json.loads((own / "recipe.json").read_text(encoding="utf-8"))
    found = {fingerprint(name, sha256_of(path)): path for name, path in find_readers(readers).items()}
    if others := [reader for reader in recipe["readers"] if reader not in found]:
        raise ScoreError(f"the recipe is of readers that are not in {readers} (name@SHA-256): {', '.join(others)}")
    torch.set_num_threads(1)  # sums are added up in the same order
    made = zip(recipe["readers"], gates_of(recipe), strict=True)
    policy, curve = train_policy(recipe, [MiniatureEnvironment(found[reader], gate=gate) for reader, gate in made])
    out = out or own
    policy.save_pretrained(out)
    if out.resolve() != own.resolve():
        shutil.copy(own / "recipe.json", out)
    print(f"{out}: accuracy in training {curve[-1][2]:.3f} at {curve[-1][3]:.1%} of the tokens")


if __name__ == "__main__":
    run_module(main)
