"""``python -m bench.prefill``: measures prefill and time to first token here, then writes docs/prefill.md."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import torch
import transformers
import typer
from packaging.version import Version
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.prefill.findings import TARGET_TOKENS, targets
from bench.prefill.geometry import QUICK, REAL, REDUCED
from bench.prefill.measure import OUT_OF_MEMORY, Bench, Recipe, Record, all_jobs
from bench.prefill.report import table, write_document
from bench.prefill.results import RESULTS, ROOT, UNDER_WAY, Results, describe_run, name_of, open_results, publish

_FLOOR = "5.18"  # of transformers: the first that takes features in place of pixels
_RETENTIONS = (1.0, 0.1, 0.25, 0.05)


def main(
    only: Annotated[
        str | None, typer.Option(help="One geometry, by name; its table is printed, docs and results stay as they are.")
    ] = None,
    vision: Annotated[
        bool, typer.Option(help="Whether the vision tower is run; without it no time to first token.")
    ] = True,
    fresh: Annotated[
        bool, typer.Option(help="Begin anew where a run was stopped, instead of going on with it.")
    ] = False,
    report: Annotated[
        bool, typer.Option(help="Measures nothing: writes the document from the results there are.")
    ] = False,
    quick: Annotated[bool, typer.Option(help="Everything once and tiny, into a temporary folder.")] = False,
) -> None:
    """Measures vision tower, compression and prefill, with all visual tokens and with few.

    On a GPU: three real models' shapes at 8k to 64k visual tokens, some five minutes on an H200. On a CPU: two reduced
    shapes, less than four minutes; on all cores, unless OMP_NUM_THREADS says otherwise. Each record is written to
    build/prefill as soon as it is there, and a run that was stopped goes on from there; a run that is whole replaces
    bench/results/prefill-cpu.json or prefill-gpu-NAME.json, of which docs/prefill.md is made. What fails, for want of
    memory or otherwise, is noted, and the rest goes on.
    """
    if report:
        return _write(RESULTS, ROOT / "docs")
    if Version(transformers.__version__) < Version(_FLOOR):
        raise typer.BadParameter(f"needs transformers {_FLOOR} or later, this is {transformers.__version__}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    recipe = _recipe(device, only, vision, quick)
    folder = Path(tempfile.mkdtemp(prefix="prefill-")) if quick else None
    name = name_of(device)
    under_way = (folder / "under-way" if folder else UNDER_WAY) / f"{name}{'-only' if only else ''}.json"
    if fresh:
        under_way.unlink(missing_ok=True)
    try:
        results = open_results(under_way, describe_run(recipe, device))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    measure_all(recipe, device, results, under_way)
    for geometry in recipe.geometries:
        for what, measured, reached in targets(results, geometry):
            print(f"{what}: {measured}: {'reached' if reached else 'NOT REACHED'}")
    if only is not None:
        print("\n".join(table(results, recipe.geometries[0])))
        under_way.unlink()
        return
    published = (folder or RESULTS) / f"{name}.json"
    publish(results, under_way, published)
    print(f"written: {published}")
    _write(published.parent, folder or ROOT / "docs")
    if failed := [key for key, record in results.records.items() if _failed(record)]:
        print(f"failed: {', '.join(failed)}")
        raise typer.Exit(1)


def _write(results: Path, docs: Path) -> None:
    found = [(file.stem, Results.load(file)) for file in sorted(results.glob("prefill-*.json"))]
    for written in write_document(found, docs):
        print(f"written: {written}")


def _recipe(device: torch.device, only: str | None, vision: bool, quick: bool) -> Recipe:
    geometries = QUICK if quick else REAL if device.type == "cuda" else REDUCED
    if only is not None:
        names = [geometry.name for geometry in geometries]
        if only not in names:
            raise typer.BadParameter(f"there is no {only!r} for this machine; there are {', '.join(names)}")
        geometries = tuple(geometry for geometry in geometries if geometry.name == only)
    warmups, repeats = (1, 2) if quick else (2, 5 if device.type == "cuda" else 7)
    # On a GPU each length is compiled for anew: there only the one that the targets are for.
    lengths = {TARGET_TOKENS} if device.type == "cuda" else {length for one in geometries for length in one.lengths}
    compiled = frozenset() if quick else frozenset(lengths)
    return Recipe(geometries, _RETENTIONS, warmups, repeats, compiled=compiled, vision=vision)


def _failed(record: Record) -> bool:
    """Otherwise than by its size: worth another try."""
    return record.get("failed", OUT_OF_MEMORY) != OUT_OF_MEMORY


def measure_all(recipe: Recipe, device: torch.device, results: Results, under_way: Path) -> None:
    """Adds what ``results`` lacks, and saves them at ``under_way`` after each record."""
    jobs = all_jobs(recipe)
    left = [job for job in jobs if job.key not in results.records or _failed(results.records[job.key])]
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    with Progress(*columns) as progress:
        task = progress.add_task("", total=len(jobs), completed=len(jobs) - len(left))
        for job, record in Bench(recipe, device).run(left):
            results.records[job.key] = record
            results.save(under_way)
            progress.update(task, advance=1, description=job.key)


if __name__ == "__main__":
    typer.run(main)
