"""``python -m evaluation.behind_gate FEATURES READERS``: is it worth knowing what the vision tower has seen, as tables.

FEATURES is a folder of :mod:`score_video.composite.features`, with those behind gates in folders in it; READERS is
evaluation/readers. The recipe of the package's policy for behind a choice before the tower is run as it is, with the
columns that say which of the tokens around a token the tower has seen, and without them; both train behind the same
gates. They are tested behind these and behind others, on two of the miniature's towers that nothing was trained on, and
on DINOv2's tokens of videos that nothing was trained on.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

from evaluation.gates import rows_behind
from evaluation.report import at, head, row
from score_video.before_tower import Gate
from score_video.command_line import run_module
from score_video.composite.environment import CompositeEnvironment
from score_video.composite.reader import shipped_reader as composite_reader
from score_video.composite.train_policy import environments_of, read_recipe
from score_video.compressor import Compressor
from score_video.errors import ScoreWarning
from score_video.miniature.environment import MiniatureEnvironment
from score_video.miniature.evaluate import encode_split
from score_video.miniature.train_policy import find_readers, train_policy
from score_video.policy import SurprisePolicy
from score_video.policy.pretrained import pretrained_policy
from score_video.provenance import circumstances
from score_video.rl.accuracy import Accuracy, choose_by, evaluate
from score_video.rl.environment import EncodedBatch
from score_video.rl.multiple_choice import ReaderEnvironment
from score_video.statistics import Answers

RETENTIONS = (0.02, 0.05, 0.1)
GATES = (("evs-dithered", 0.3), ("surprise-l2", 0.3), ("pretrained", 0.2))
"""Of the miniature's tables; nothing was trained behind the last."""
NEVER_SEEN = ("tower-2", "tower-4")
SPLITS, TEST_SEED = ("plain", "lookalike"), 2026
WITH, WITHOUT = "trained behind gates, knows what was seen", "trained behind gates, does not know"


@dataclass(frozen=True)
class Place:
    """Where compressors are tested.

    Attributes:
        name: heading of the table.
        gate: what chose before the tower.
        worlds: environments, and videos of the test that each has encoded behind the gate.
    """

    name: str
    gate: Compressor
    worlds: Sequence[tuple[ReaderEnvironment, Sequence[EncodedBatch]]]

    def answers(self, methods: Sequence[str | SurprisePolicy], retention: float) -> Answers:
        """What is answered from what each method keeps, all worlds together; methods are seeds."""
        every = [self._accuracy(Compressor(method, retention, before_tower=self.gate), retention) for method in methods]
        return replace(every[0], right=np.concatenate([answers.right for answers in every]))

    def _accuracy(self, compressor: Compressor, retention: float) -> Answers:
        choose = choose_by(compressor)
        return Accuracy.join([evaluate(world, batches, choose, retention) for world, batches in self.worlds]).answers


def places(readers: Path, videos: int, features: Path, composite_videos: int) -> Iterator[Place]:
    """The miniature behind each gate; then the composite world behind those of which there are features."""
    found = find_readers(readers)
    for rule, retention in GATES:
        gate = Compressor(rule, retention)
        worlds = []
        for tower in NEVER_SEEN:
            world = MiniatureEnvironment(found[tower], gate=Gate(gate, name=rule))
            encoded = [batch for split in SPLITS for batch in encode_split(world, split, "test", TEST_SEED, videos)]
            worlds.append((world, encoded))
        yield Place(f"The miniature's {' and '.join(NEVER_SEEN)} behind {rule}, {at(retention)}", gate, worlds)
    whole = CompositeEnvironment(composite_reader(), features, "test", composite_videos)
    for kept in rows_behind(features, composite_videos):
        assert kept.gate is not None and isinstance(kept.gate.selector, Compressor)
        yield Place(f"DINOv2 behind {kept.name}", kept.gate.selector, [(whole, kept.batches)])


def trained(
    recipe: Mapping[str, Any], features: Path, readers: Path, use_seen: bool, seeds: int
) -> list[SurprisePolicy]:
    """Policies of the recipe, with the columns of what was seen or without them."""
    environments = environments_of(recipe, features, readers)
    policy = {**recipe["policy"], "use_seen": use_seen}
    return [train_policy({**recipe, "policy": policy, "seed": seed}, environments)[0] for seed in range(seeds)]


def main(
    features: Annotated[
        Path, typer.Argument(help="Folder of the composite world's features, those behind gates in folders in it.")
    ],
    readers: Annotated[Path, typer.Argument(help="Folder of the miniature's readers: evaluation/readers.")],
    seeds: Annotated[int, typer.Option(help="Policies of each kind.", min=1)] = 3,
    steps: Annotated[int | None, typer.Option(help="Of the trainings. [default: as the recipe says]", min=1)] = None,
    videos: Annotated[int, typer.Option(help="Test videos of the miniature, of each of two splits.", min=2)] = 192,
    composite_videos: Annotated[int, typer.Option(help="Test videos of the composite world, a multiple of 20.")] = 300,
) -> None:
    """Accuracies in % of policies behind a choice before the tower that know what it has seen, and that do not."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ScoreWarning)  # of policies that were not trained behind a gate: that is the point
    print(", ".join(f"{name} {value}" for name, value in circumstances("torch", "transformers").items()), flush=True)
    recipe = read_recipe(behind_gate=True)
    if steps is not None:
        recipe["settings"]["max_steps"] = steps
    methods: dict[str, Sequence[str | SurprisePolicy]] = {
        WITH: trained(recipe, features, readers, True, seeds),
        WITHOUT: trained(recipe, features, readers, False, seeds),
        "the package's, trained without gates": [pretrained_policy()],
        "divprune-whitened": ["divprune-whitened"],
    }
    for place in places(readers, videos, features, composite_videos):
        print(f"\n### {place.name}\n\n{head('then', [at(of) for of in RETENTIONS])}", flush=True)
        found = {name: [place.answers(own, of) for of in RETENTIONS] for name, own in methods.items()}
        for name, answers in found.items():
            print(row(name, answers))
        gained = [with_it.minus(without) for with_it, without in zip(found[WITH], found[WITHOUT], strict=True)]
        print(row("points gained by knowing", gained), flush=True)


if __name__ == "__main__":
    run_module(main)
