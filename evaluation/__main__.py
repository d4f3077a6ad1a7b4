"""``python -m evaluation``: runs the jobs that have no result yet, then writes the document from all results."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from evaluation.experiments import EXPERIMENTS, QUICK, RECIPE, Recipe
from evaluation.jobs import RESULTS, ROOT, Code
from evaluation.study import Study, StudyError, find_readers
from score_video.miniature.environment import shipped_reader


def find_footage(recipe: Recipe) -> Path | None:
    """The clip that a recipe names, where it lies in evaluation/footage or beside the checkout."""
    places = (ROOT / "evaluation" / "footage", ROOT.parent / "shared" / "video")
    return next((path for place in places if (path := place / recipe["footage"]["name"]).is_file()), None)


def main(
    only: Annotated[
        list[str] | None, typer.Option(help=f"An experiment: {', '.join(EXPERIMENTS)}. Repeatable.")
    ] = None,
    quick: Annotated[bool, typer.Option(help="Everything once and tiny, into a temporary folder.")] = False,
    fresh: Annotated[bool, typer.Option(help="Run jobs again that have a result.")] = False,
    footage: Annotated[Path | None, typer.Option(help="The clip that the recipe names, for the split footage.")] = None,
    reader: Annotated[Path | None, typer.Option(help="Weights in place of those that come with the package.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Worker processes, one thread each.")] = 2,
    partial: Annotated[bool, typer.Option(help="Write the document without results that are not there.")] = False,
    allow_dirty: Annotated[bool, typer.Option(help="Run code that is not committed; the document says so.")] = False,
) -> None:
    """Runs the study: jobs in worker processes, results in evaluation/results, docs/results.md from these."""
    names = list(EXPERIMENTS) if only is None else only
    if unknown := [name for name in names if name not in EXPERIMENTS]:
        raise typer.BadParameter(f"there is no experiment {unknown[0]!r}; there are {', '.join(EXPERIMENTS)}")
    recipe = QUICK if quick else RECIPE
    folder = Path(tempfile.mkdtemp(prefix="study-")) if quick else None
    try:
        study = Study(
            recipe=recipe,
            readers=find_readers(recipe, reader or shipped_reader()),
            footage=footage or find_footage(recipe),
            results=folder / "results" if folder else RESULTS,
            docs=folder or ROOT / "docs",
            code=Code.of(),
            allow_dirty=allow_dirty or quick,
        )
        failed = study.run(names, fresh=fresh, workers=workers)
        if only is not None and not partial and (lacking := study.lacking()):
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
