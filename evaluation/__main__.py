"""``python -m evaluation``: runs the jobs that have no result yet, then writes the document from all results."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from evaluation.experiments import EXPERIMENTS
from evaluation.provenance import ROOT
from evaluation.recipe import FULL, QUICK
from evaluation.study import Study, find_footage, find_readers
from score_video.miniature.environment import shipped_reader

RESULTS = ROOT / "evaluation" / "results"


def main(
    only: Annotated[
        list[str] | None, typer.Option(help=f"An experiment: {', '.join(EXPERIMENTS)}. Repeatable.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Everything once and tiny, into a temporary folder.")] = False,
    fresh: Annotated[bool, typer.Option(help="Run jobs again that have a result.")] = False,
    footage: Annotated[Path | None, typer.Option(help="A clip for the split footage.")] = None,
    reader: Annotated[Path | None, typer.Option(help="Weights in place of those that come with the package.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes, one thread each.")] = 2,
) -> None:
    """Runs the study: jobs in worker processes, results in evaluation/results, docs/results.md from these."""
    names = list(EXPERIMENTS) if only is None else only
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        raise typer.BadParameter(f"there is no experiment {unknown[0]!r}; there are {', '.join(EXPERIMENTS)}")
    folder = Path(tempfile.mkdtemp(prefix="study-")) if quick else None
    study = Study(
        recipe=QUICK if quick else FULL,
        readers=find_readers(reader or shipped_reader()),
        footage=footage or find_footage(),
        results=folder / "results" if folder else RESULTS,
        docs=folder or ROOT / "docs",
    )
    failed = study.run(names, fresh=fresh, workers=workers)
    for written in study.report():
        print(f"written: {written}")
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
