"""``python -m evaluation``: runs the jobs that have no result yet, then writes the document from all results."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from evaluation.experiments import EXPERIMENTS, QUICK, RECIPE
from evaluation.jobs import ROOT, Code, StudyError, find_readers
from evaluation.study import Study

FOLDER = ROOT / "evaluation"


def main(
    only: Annotated[
        list[str] | None, typer.Option(help=f"An experiment: {', '.join(EXPERIMENTS)}. Repeatable.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Everything once and tiny, into a temporary folder.")] = False,
    footage: Annotated[Path, typer.Option(help="The clip that the recipe names, for the split footage.")] = (
        FOLDER / "footage" / RECIPE["footage"]["name"]
    ),
    workers: Annotated[int, typer.Option(min=1, help="Worker processes, one thread each.")] = 2,
    partial: Annotated[bool, typer.Option(help="Write the document without results that are not there.")] = False,
    allow_dirty: Annotated[bool, typer.Option(help="Run code that is not committed; the document says so.")] = False,
) -> None:
    """Runs the study: jobs in worker processes, results in evaluation/results, docs/results.md from these."""
    names = only or list(EXPERIMENTS)
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        raise typer.BadParameter(f"there is no experiment {unknown[0]!r}; there are {', '.join(EXPERIMENTS)}")
    results, docs = FOLDER / "results", ROOT / "docs"
    if quick:
        docs = Path(tempfile.mkdtemp(prefix="study-"))
        results = docs / "results"
    recipe, dirty = QUICK if quick else RECIPE, allow_dirty or quick
    study = Study(recipe, find_readers(), footage, results, docs, Code.of(), dirty)
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
