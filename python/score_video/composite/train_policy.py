"""``python -m score_video.composite.train_policy FEATURES READERS`` makes a policy of the package, by the recipe beside
its weights (score_video/policy/pretrained/recipe.json).

It learns through several vision towers, batch by batch: a real one, whose kept features over real footage are in
FEATURES (docs/composite.md), and those of the miniature's READERS. The same recipe makes the same weights, to rounding:
another processor adds up in another order.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from score_video.before_tower import Gate
from score_video.command_line import run_module
from score_video.composite.environment import CompositeEnvironment
from score_video.composite.reader import Reader, shipped_reader
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.files import sha256_of
from score_video.miniature.environment import MiniatureEnvironment
from score_video.miniature.train_policy import find_readers, fingerprint, train_policy
from score_video.policy import SurprisePolicy
from score_video.policy.pretrained import BEHIND_GATE, PRETRAINED
from score_video.rl.environment import EncodedBatch, Environment, Example, Outcome, Selection


@dataclass(frozen=True)
class ByNumber:
    """Videos of the composite world where examples are of another: each is that of its number.

    Attributes:
        environment: has the videos.
        turns: how many environments take turns by the first example's number, this one among them; so that the video
            does not depend on whose turn it is.
    """

    environment: CompositeEnvironment
    turns: int

    @property
    def gate(self) -> Gate | None:
        """See :class:`score_video.rl.environment.Environment`."""
        return self.environment.gate

    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        """See :class:`score_video.rl.environment.Environment`."""
        numbers = (int(example["number"]) // self.turns for example in examples)
        return self.environment.encode([{"number": number % len(self.environment.features)} for number in numbers])

    def answer(self, batch: EncodedBatch, selection: Selection, **asked: bool) -> Outcome:
        """See :class:`score_video.rl.environment.Environment`."""
        return self.environment.answer(batch, selection, **asked)


def environments_of(recipe: Mapping[str, Any], features: Path, readers: Path) -> list[Environment]:
    """Where a recipe trains, for :func:`~score_video.miniature.train_policy.train_policy`, whose batches they share.

    Args:
        recipe: ``miniature``: [reader, [rule, retention] or null] each, a reader by its fingerprint and what chooses
            before its tower; ``composite``: the ``tower`` of the features, the number of ``videos``, and ``gates``,
            folders in FEATURES of what was made behind one, or null for the whole tower, which take turns; and
            ``turns``, how many batches in a round are of these. One in a round is of each of the miniature's readers.
        features: FEATURES.
        readers: READERS.

    Raises:
        ScoreError: a reader that is not there or is another; features of another tower, or too few.
    """
    miniature, composite = [*_miniature(recipe["miniature"], readers)], recipe["composite"]
    reader = Reader.load(shipped_reader())
    if reader.config.tower != composite["tower"]:
        raise ScoreError(
            f"the recipe is for tower {composite['tower']}, the package's reader for {reader.config.tower}"
        )
    turns = len(miniature) + composite["turns"]
    kept = [
        ByNumber(CompositeEnvironment(reader, features, "policy", composite["videos"], gate), turns)
        for gate in composite["gates"]
    ]
    return [*miniature, *(kept[turn % len(kept)] for turn in range(composite["turns"]))]


def _miniature(given: Sequence[Any], readers: Path) -> Iterator[Environment]:
    found = {fingerprint(name, sha256_of(path)): path for name, path in find_readers(readers).items()}
    if others := [name for name, _ in given if name not in found]:
        raise ScoreError(f"the recipe is of readers that are not in {readers} (name@SHA-256): {', '.join(others)}")
    for name, rule in given:
        gate = None if rule is None else Gate(Compressor(*rule), name=rule[0])
        yield MiniatureEnvironment(found[name], gate=gate)


def read_recipe(behind_gate: bool) -> dict[str, Any]:
    """The recipe of a policy of the package."""
    recipe: dict[str, Any] = json.loads(
        ((BEHIND_GATE if behind_gate else PRETRAINED) / "recipe.json").read_text("utf-8")
    )
    return recipe


def make_policy(recipe: Mapping[str, Any], features: Path, readers: Path) -> tuple[SurprisePolicy, list[list[float]]]:
    """The policy of a recipe and the curve of its training, as
    :func:`score_video.miniature.train_policy.train_policy`; arguments and errors as :func:`environments_of`."""
    torch.set_num_threads(1)  # sums are added up in the same order
    return train_policy(recipe, environments_of(recipe, features, readers))


def main(
    features: Annotated[Path, typer.Argument(help="Folder of features of the composite world's partition policy.")],
    readers: Annotated[Path, typer.Argument(help="Folder of the miniature's readers: evaluation/readers.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the policy; weights in it are replaced. [default: in the package]")
    ] = None,
    behind_gate: Annotated[bool, typer.Option(help="The policy for behind a choice before the tower.")] = False,
) -> None:
    """Train a policy that comes with the package, for some minutes, and save it."""
    own = BEHIND_GATE if behind_gate else PRETRAINED
    policy, curve = make_policy(read_recipe(behind_gate), features, readers)
    out = out or own
    policy.save_pretrained(out)
    if out.resolve() != own.resolve():
        shutil.copy(own / "recipe.json", out)
    print(f"{out}: accuracy in training {curve[-1][2]:.3f} at {curve[-1][3]:.1%} of the tokens")


if __name__ == "__main__":
    run_module(main)
