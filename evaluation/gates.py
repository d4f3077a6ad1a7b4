"""``python -m evaluation.gates FEATURES``: what choosing before the tower costs on the composite world, as a table.

FEATURES is a folder of :mod:`score_video.composite.features`, with the test's after the whole tower in it, and those
behind each gate in a folder of its own. Each compressor is compared with itself after the whole tower, on the same
questions, at equal tokens.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
import typer

from score_video.before_tower import Gate, Seen, fill_in
from score_video.command_line import run_module
from score_video.composite.environment import CompositeEnvironment
from score_video.composite.evaluate import choose_by, evaluate
from score_video.composite.reader import shipped_reader
from score_video.compressor import Compressor
from score_video.errors import ScoreWarning
from score_video.packed import PackedVideos, Selection
from score_video.provenance import circumstances
from score_video.rl.environment import EncodedBatch
from score_video.statistics import Answers

RETENTIONS = (0.02, 0.05, 0.1, 0.25)
FRAMES = (0.5, 0.3)
"""Shares of the frames that the tower sees whole, where frames are left out."""


@dataclass(frozen=True)
class Row:
    """What stands before the tower.

    Attributes:
        gate: chooses there; None: nothing does.
        batches: of the test, after the tower.
        name: for the table.
    """

    gate: Gate | None
    batches: Sequence[EncodedBatch]
    name: str

    @property
    def work(self) -> float:
        """Share of the patches that the tower ran on."""
        if self.gate is None:
            return 1.0
        seen = sum(len(batch.seen.encoded) for batch in self.batches if batch.seen is not None)
        return seen / sum(len(batch.videos.tokens) for batch in self.batches)

    def selector(self, method: str, retention: float) -> Compressor | None:
        """A compressor behind it; None where the gate keeps less than that."""
        before = None if self.gate is None else self.gate.selector
        if not isinstance(before, Compressor | None):
            raise TypeError(f"a gate of kept features must be a compressor, got {type(before).__name__}")
        if before is not None and not retention <= before.retention:  # type: ignore[operator]
            return None
        return Compressor.from_pretrained(method, retention=retention, before_tower=before)


def rows_of(features: Path, videos: int) -> Iterator[Row]:
    """The whole tower, whole frames of it, and what there is behind gates."""
    reader = shipped_reader()
    whole = list(CompositeEnvironment(reader, features, "test", videos).batches())
    yield Row(None, whole, "everything")
    for share in FRAMES:
        gate = Gate(Compressor("uniform", share), 0, "uniform")
        yield Row(gate, [_only_frames(batch, gate) for batch in whole], f"{share:.0%} of the frames")
    yield from rows_behind(features, videos)


def rows_behind(features: Path, videos: int) -> Iterator[Row]:
    """What there is behind gates."""
    reader = shipped_reader()
    for folder in sorted(path.parent for path in features.glob("*/test-00000.safetensors")):
        world = CompositeEnvironment(reader, features, "test", videos, folder.name)
        assert world.gate is not None and isinstance(world.gate.selector, Compressor)
        name = folder.name.removesuffix(f"-halo-{world.gate.halo}").removesuffix(f"-{world.gate.selector.retention}")
        around = f"halo {world.gate.halo}" if world.gate.halo else "alone"
        yield Row(world.gate, list(world.batches()), f"{name}, {world.gate.selector.retention:.0%}, {around}")


def _only_frames(batch: EncodedBatch, gate: Gate) -> EncodedBatch:
    """The tower sees frames one by one, so that what it makes of some is what it makes of them among all."""
    videos = batch.videos
    per_frame = int(videos.tokens_per_frame[0])
    frames = [(length // per_frame, 1, 1) for length in videos.lengths.tolist()]
    chosen = gate.choose(PackedVideos.from_grids(videos.tokens[::per_frame], frames)).kept
    index = (chosen.index[:, None] * per_frame + torch.arange(per_frame)).flatten()
    seen = Seen(Selection(index, chosen.keep * per_frame), index)
    return replace(batch, videos=fill_in(videos, index), seen=seen)


def tested(row: Row, environment: CompositeEnvironment, method: str) -> dict[float, Answers]:
    """The answers at each retention that the gate allows."""
    found = {}
    for retention in RETENTIONS:
        selector = row.selector(method, retention)
        if selector is not None:
            found[retention] = evaluate(environment, row.batches, choose_by(selector), retention).answers
    return found


def line(row: Row, method: str, answers: Mapping[float, Answers], base: Mapping[float, Answers] | None) -> str:
    """A row of the table: accuracies in %, or points above the same after the whole tower."""
    cells = [f"{row.name}", f"{row.work:.0%}", method]
    for retention in RETENTIONS:
        own = answers.get(retention)
        cells.append("" if own is None else str(own if base is None else own.minus(base[retention])))
    return f"| {' | '.join(cells)} |"


def main(
    features: Annotated[Path, typer.Argument(help="Folder of features, those behind gates in folders in it.")],
    videos: Annotated[int, typer.Option(help="How many of the test's, a multiple of 20.")] = 300,
    method: Annotated[
        list[str] | None, typer.Option(help="A method, pretrained or a folder. Repeatable. [default: two]")
    ] = None,
) -> None:
    """What choosing before the tower costs, against tower work done, on kept features."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", ScoreWarning)  # of policies that were not trained behind a gate: that is the point
    environment = CompositeEnvironment(shipped_reader(), features, "test", videos)
    print(", ".join(f"{name} {value}" for name, value in circumstances("torch", "transformers").items()))
    print(f"\n| the tower sees | of the patches | then | {' | '.join(f'{of:.0%}' for of in RETENTIONS)} |")
    print(f"|---|---:|---|{'---:|' * len(RETENTIONS)}")
    bases: dict[str, dict[float, Answers]] = {}
    for row in rows_of(features, videos):
        for name in method or ["divprune", "pretrained"]:
            found = tested(row, environment, name)
            print(line(row, Path(name).name, found, bases.get(name)), flush=True)
            bases.setdefault(name, found)


if __name__ == "__main__":
    run_module(main)
