"""``python -m evaluation.towers FEATURES...``: compressors on real towers that nothing was trained on, as tables.

Each FEATURES is a folder of :mod:`score_video.composite.features` with the test's of one tower. The reader is the one
of that tower: the package's, or one in evaluation/readers/composite. Everything keeps exactly the same number of
tokens, and is compared with DivPrune on the same questions; beside the accuracy stands what a choice costs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from evaluation.jobs import ROOT
from score_video.command_line import run_module
from score_video.composite.environment import CompositeEnvironment
from score_video.composite.evaluate import choose_by, evaluate, oracle
from score_video.composite.features import tower_of
from score_video.composite.reader import Reader, shipped_reader
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.provenance import circumstances
from score_video.rl.accuracy import Choose, budgets
from score_video.rl.environment import EncodedBatch
from score_video.statistics import Answers

RETENTIONS = (0.01, 0.02, 0.05, 0.1, 0.25)
TIMED, REPEATS = 0.1, 5
"""The retention that is timed, and how often: the median of so many counts."""
BASE = "divprune"
METHODS = (BASE, "divprune-whitened", "pretrained", "evs-capped", "evs-dithered", "vidcom2", "random")
ORACLE = "oracle"


def readers() -> list[Path]:
    """Weights of the readers that there are, one for each tower."""
    return [shipped_reader(), *sorted((ROOT / "evaluation" / "readers" / "composite").glob("*.safetensors"))]


def reader_of(features: Path) -> tuple[str, Reader]:
    """Name and reader of the tower that made them; raises ScoreError where there is none."""
    tower = tower_of(features, "test")
    for path in readers():
        if (reader := Reader.load(path)).config.tower == tower:
            return "dinov2-small" if path == shipped_reader() else path.stem, reader
    raise ScoreError(f"{features} is of the tower {tower}, which no reader of the checkout was trained on")


def milliseconds(batch: EncodedBatch, choose: Choose) -> float:
    """Of one choice of one video, the median over the batch's first ``REPEATS``; after another one."""
    times = []
    for number in range(REPEATS + 1):
        one = _only(batch, number % batch.videos.num_videos)
        keep = budgets(one, TIMED)
        start = time.perf_counter()
        choose(one, keep)
        times.append(1000 * (time.perf_counter() - start))
    return sorted(times[1:])[REPEATS // 2]


def _only(batch: EncodedBatch, number: int) -> EncodedBatch:
    """One of its videos, by itself; nothing can be answered about it."""
    videos = batch.videos
    begin, end = videos.cu_seqlens[number : number + 2].tolist()
    per_frame, columns = int(videos.tokens_per_frame[number]), int(videos.columns[number])
    grid = ((end - begin) // per_frame, per_frame // columns, columns)
    return EncodedBatch(type(videos).from_grids(videos.tokens[begin:end], [grid]), None)


def chooser(name: str) -> Callable[[EncodedBatch, Tensor], Tensor]:
    """What a compressor keeps, by name or folder; or the generator's oracle."""
    return oracle if name == ORACLE else choose_by(Compressor.from_pretrained(name))


def table(features: Path, videos: int, methods: Sequence[str]) -> list[str]:
    """Lines of Markdown: accuracies in %, then points above DivPrune, then what a choice costs."""
    name, reader = reader_of(features)
    environment = CompositeEnvironment(reader, features, "test", videos)
    batches = list(environment.batches())
    everything = evaluate(environment, batches, None)
    asked = int(everything.asked.sum())
    lines = [f"## {name}, {environment.token_width} wide: {everything.answers}% on all tokens; {asked} questions", ""]
    shares = [f"{of:.0%}" for of in RETENTIONS]
    lines += [f"| | {' | '.join(shares)} | above {BASE} at {' | at '.join(shares)} | ms a video at {TIMED:.0%} |"]
    lines += [f"|---|{'---:|' * (2 * len(RETENTIONS) + 1)}"]
    base: dict[float, Answers] = {}
    for method in dict.fromkeys([BASE, *methods, ORACLE]):
        choose = chooser(method)
        found = {of: evaluate(environment, batches, choose, of).answers for of in RETENTIONS}
        base = base or found
        above = ["" if method == BASE else str(own.minus(base[of])) for of, own in found.items()]
        cost = "" if method == ORACLE else f"{milliseconds(batches[0], choose):.1f}"
        cells = [Path(method).name, *map(str, found.values()), *above, cost]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main(
    features: Annotated[list[Path], typer.Argument(help="Folders of features, one for each tower.")],
    videos: Annotated[int, typer.Option(help="How many of the test's, a multiple of 20.")] = 300,
    method: Annotated[
        list[str] | None,
        typer.Option(help="A method, pretrained or the folder of a policy for any tower. Repeatable. [default: seven]"),
    ] = None,
) -> None:
    """Compressors on the composite world's test through towers that nothing was trained on."""
    torch.set_num_threads(1)
    print(", ".join(f"{name} {value}" for name, value in circumstances("torch", "transformers").items()))
    for folder in features:
        print("", *table(folder, videos, method or METHODS), sep="\n", flush=True)


if __name__ == "__main__":
    run_module(main)
