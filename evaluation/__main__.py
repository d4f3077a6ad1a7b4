"""``python -m evaluation``: runs the jobs that have no result yet, then writes the document from all results."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from evaluation.experiments import load_recipe
from evaluation.jobs import ROOT, Code
from evaluation.study import Study
from evaluation.worlds import WORLDS
from score_video.command_line import run_module


def main(
    only: Annotated[list[str] | None, typer.Option(help="An experiment of the world's .yaml. Repeatable.")] = None,
    world: Annotated[str, typer.Option(help="miniature, or composite: what is run is in its .yaml.")] = "miniature",
    quick: Annotated[bool, typer.Option(help="Everything once and tiny, into a temporary folder.")] = False,
    media: Annotated[
        Path | None,
        typer.Option(
            "--media", "--footage", "--features", help="The clip or the kept features. [default: as in the .yaml]"
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes, one thread each.")] = 2,
    partial: Annotated[bool, typer.Option(help="Write the document without results that are not there.")] = False,
    allow_dirty: Annotated[bool, typer.Option(help="Run code that is not committed; the document says so.")] = False,
) -> None:
    """Runs the study: jobs in worker processes, results in evaluation/results, docs/results.md from these."""
    if world not in WORLDS:
        raise typer.BadParameter(f"must be one of {', '.join(WORLDS)}, got {world!r}", param_hint="--world")
    recipe = load_recipe(world, quick)
    there = list(recipe["experiments"])
    names = only or there
    if unknown := [name for name in names if name not in there]:
        raise typer.BadParameter(f"there is no experiment {unknown[0]!r}; there are {', '.join(there)}")
    results, docs = ROOT / "evaluation" / "results", ROOT / "docs"
    if quick:
        docs = Path(tempfile.mkdtemp(prefix="study-"))
        results = docs / "results"
    at = media or ROOT / recipe["media"]["path"]
    study = Study(recipe, WORLDS[world].readers(), at, results, docs, Code.of(), allow_dirty or quick)
    failed = study.run(names, workers)
    if only and not partial and (lacking := study.lacking()):
        print(f"the document is left as it is: {lacking}")
    else:
        for written in study.report(partial):
            print(f"written: {written}")
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    run_module(main)
