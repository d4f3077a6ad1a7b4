"""``python -m evaluation``: runs the jobs that have no result yet, then writes the document from all results."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from evaluation.experiments import EXPERIMENTS, RECIPE, load_recipe
from evaluation.jobs import ROOT, Code, StudyError, find_readers
from evaluation.study import Study
from evaluation.train import WORLDS

FOLDER = ROOT / "evaluation"


def main(
    only: Annotated[
        list[str] | None, typer.Option(help=f"An experiment: {', '.join(EXPERIMENTS)}. Repeatable.")
    ] = None,
    world: Annotated[str, typer.Option(help="miniature, or composite: what is run is in its .yaml.")] = "miniature",
    quick: Annotated[bool, typer.Option(help="Everything once and tiny, into a temporary folder.")] = False,
    footage: Annotated[Path, typer.Option(help="The clip that the recipe names, for the split footage.")] = (
        FOLDER / "footage" / RECIPE["footage"]["name"]
    ),
    features: Annotated[Path, typer.Option(help="Kept features, for the composite world (docs/composite.md).")] = (
        ROOT / "build" / "features" / "dinov2"
    ),
    workers: Annotated[int, typer.Option(min=1, help="Worker processes, one thread each.")] = 2,
    partial: Annotated[bool, typer.Option(help="Write the document without results that are not there.")] = False,
    allow_dirty: Annotated[bool, typer.Option(help="Run code that is not committed; the document says so.")] = False,
) -> None:
    """Runs the study: jobs in worker processes, results in evaluation/results, docs/results.md from these."""
    if world not in WORLDS:
        raise typer.BadParameter(f"must be miniature or composite, got {world!r}", param_hint="--world")
    recipe = load_recipe(world, quick)
    there = list(recipe["experiments"])
    names = only or there
    if unknown := [name for name in names if name not in there]:
        raise typer.BadParameter(f"there is no experiment {unknown[0]!r}; there are {', '.join(there)}")
    results, docs = FOLDER / "results", ROOT / "docs"
    if quick:
        docs = Path(tempfile.mkdtemp(prefix="study-"))
        results = docs / "results"
    study = Study(recipe, find_readers(world), footage, features, results, docs, Code.of(), allow_dirty or quick)
    try:
        failed = study.run(names, workers)
        if only and not partial and (lacking := study.lacking()):
            print(f"the document is left as it is: {lacking}")
        else:
            for written in study.report(partial):
                print(f"written: {written}")
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from None
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
