"""``python -m evaluation.towers FEATURES...``: compressors on real towers that nothing was trained on, as tables.

Each FEATURES is a folder of :mod:`score_video.composite.features` with the test's of one tower. Everything keeps
exactly the same number of tokens, and is compared with DivPrune on the same videos: the share of the things in a video
of which a token is kept, for which no reader is needed; what a choice costs; and, where the package's reader is of the
tower, what it answers.

With ``--clips`` so many videos of the test, one after another, are one long video to what chooses, as in an edited
film: exactly, because these towers look at one frame at a time. How many tokens each of them gets is up to the
compressor. What is asked is about one of them, and answered from what is kept of that.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

from evaluation.report import at, head, prefixed, row
from evaluation.results import TIMED
from score_video.command_line import run_module
from score_video.composite.environment import VIDEOS_AT_ONCE, CompositeEnvironment
from score_video.composite.evaluate import choose_by, evaluate, oracle, things_kept
from score_video.composite.features import load_features, tower_of
from score_video.composite.reader import Reader, ReaderConfig, shipped_reader
from score_video.composite.scenery import FRAMES
from score_video.composite.world import TOKENS
from score_video.compressor import Compressor
from score_video.packed import PackedVideos
from score_video.provenance import circumstances
from score_video.rl.accuracy import Choose, budgets
from score_video.rl.environment import EncodedBatch
from score_video.statistics import Answers

RETENTIONS = (0.01, 0.02, 0.05, 0.1, 0.25)
REPEATS = 5
"""How often a choice at the retention ``TIMED`` is timed: the median counts."""
BASE = "divprune"
METHODS = (BASE, "divprune-whitened", "pretrained", "evs-capped", "evs-dithered", "vidcom2", "random")
ORACLE = "oracle"


def joined(choose: Choose, clips: int) -> Choose:
    """As if every ``clips`` videos of a batch were one, which may keep as many tokens as they do."""

    def choose_of_long(batch: EncodedBatch, keep: Tensor) -> Tensor:
        own = batch.videos
        starts, per_frame, columns = (
            of[::clips].contiguous() for of in (own.cu_seqlens, own.tokens_per_frame, own.columns)
        )
        long = replace(batch, videos=PackedVideos(own.tokens, starts, per_frame, columns, own.num_frames))
        return choose(long, keep.view(-1, clips).sum(1, dtype=torch.int32))

    return choose_of_long


def milliseconds(environment: CompositeEnvironment, choose: Choose, clips: int) -> float:
    """Of one choice of one video of so many clips, the median over the first ``REPEATS``; after another one."""
    times = []
    there = len(environment.features) // clips
    for number in (0, *(repeat % there for repeat in range(REPEATS))):
        one = environment.batch(torch.arange(number * clips, (number + 1) * clips))
        keep = budgets(one, TIMED)
        start = time.perf_counter()
        choose(one, keep)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def chooser(name: str) -> Choose:
    """What a compressor keeps, by name or folder; or the generator's oracle."""
    return oracle if name == ORACLE else choose_by(Compressor.from_pretrained(name))


def table(found: Mapping[str, Mapping[float, Answers]], costs: Mapping[str, float]) -> list[str]:
    """Lines of Markdown: shares in %, then points above DivPrune, then what a choice costs, if that is to be told."""
    timed = [f"ms a video at {at(TIMED)}"] if costs else []
    shares = [at(of) for of in RETENTIONS]
    lines = [head("", shares, f"above {BASE} at {shares[0]}", prefixed(shares[1:], "at "), timed)]
    for method, answers in found.items():
        above = ["" if method == BASE else own.minus(found[BASE][of]) for of, own in answers.items()]
        cost = [f"{costs[method]:.1f}" if method in costs else ""] if costs else []
        lines.append(row(Path(method).name, answers.values(), above, cost))
    return lines


def tables(features: Path, videos: int, methods: Sequence[str], clips: int) -> Iterator[str]:
    """Markdown of one tower, in pieces."""
    reader, tower = Reader.load(shipped_reader()), tower_of(features, "test")
    answers = reader.config.tower == tower
    if not answers:  # one that is not asked, to look features up with
        reader = Reader(ReaderConfig(load_features(features, "test", range(20)).tokens.shape[2], tower))
    environment = CompositeEnvironment(reader, features, "test", videos)
    at_once = clips * max(1, VIDEOS_AT_ONCE // clips)
    batches = [environment.batch(numbers) for numbers in torch.arange(videos).split(at_once)]
    choosers = {method: joined(chooser(method), clips) for method in dict.fromkeys([BASE, *methods, ORACLE])}
    costs = {m: milliseconds(environment, choose, clips) for m, choose in choosers.items() if m != ORACLE}
    long = f", videos of {clips * FRAMES} frames and {clips * TOKENS:,} tokens" if clips > 1 else ""
    yield f"## {features.name}, {environment.token_width} wide{long}"
    yield "Things of which a token is kept, in % of all that move, flash or are always there:"
    kept = {m: {of: things_kept(batches, choose, of) for of in RETENTIONS} for m, choose in choosers.items()}
    yield "\n".join(table(kept, costs))
    if answers:
        everything = evaluate(environment, batches, None)
        asked = int(everything.asked.sum())
        yield f"Answers, in % of {asked} questions; {everything.answers} on all tokens:"
        found = {
            m: {of: evaluate(environment, batches, c, of).answers for of in RETENTIONS} for m, c in choosers.items()
        }
        yield "\n".join(table(found, {}))


def main(
    features: Annotated[list[Path], typer.Argument(help="Folders of features, one for each tower.")],
    videos: Annotated[int, typer.Option(help="How many of the test's, a multiple of 20.")] = 300,
    method: Annotated[
        list[str] | None,
        typer.Option(help="A method, pretrained or the folder of a policy for any tower. Repeatable. [default: seven]"),
    ] = None,
    clips: Annotated[int, typer.Option(help="How many of them, one after another, make one long video.", min=1)] = 1,
) -> None:
    """Compressors on the composite world's test through towers that nothing was trained on."""
    if videos % clips:
        raise typer.BadParameter(f"must divide the {videos} videos, got {clips}", param_hint="CLIPS")
    torch.set_num_threads(1)
    print(", ".join(f"{name} {value}" for name, value in circumstances("torch", "transformers").items()))
    for folder in features:
        for piece in tables(folder, videos, method or METHODS, clips):
            print("", piece, sep="\n", flush=True)


if __name__ == "__main__":
    run_module(main)
