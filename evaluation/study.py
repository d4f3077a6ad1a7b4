"""The study as a whole: finds the files, runs what has no result yet, keeps results, writes the document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from evaluation.experiments import EXPERIMENTS, Plan, missing_towers
from evaluation.jobs import Files, Job, fingerprint, save_json
from evaluation.pool import Done, run_all
from evaluation.provenance import ROOT, provenance
from evaluation.recipe import Recipe
from evaluation.report import write_report
from evaluation.work import FUNCTIONS


def find_readers(shipped: Path) -> dict[str, Path]:
    """The shipped reader and those in evaluation/readers, by name."""
    return {
        "shipped": shipped,
        **{path.stem: path for path in sorted((ROOT / "evaluation/readers").glob("*.safetensors"))},
    }


def find_footage() -> Path | None:
    """The first of the shared clips, where they are there."""
    return next(iter(sorted((ROOT.parent / "shared" / "video").glob("*.mp4"))), None)


@dataclass(frozen=True)
class Study:
    """A recipe, the files at hand, and where results and documents go.

    Attributes:
        recipe: what is run.
        readers: weights by name; "shipped" among them.
        footage: a clip, or None.
        results: the folder of the JSON.
        docs: the folder of results.md and its figures.
    """

    recipe: Recipe
    readers: dict[str, Path]
    footage: Path | None
    results: Path
    docs: Path

    def plan(self) -> tuple[Plan, Files]:
        """The plan, and the files that its fingerprints stand for."""
        readers = {name: fingerprint(path, name) for name, path in self.readers.items()}
        footage = None if self.footage is None else fingerprint(self.footage)
        files = Files(
            {readers[name]: path for name, path in self.readers.items()},
            {} if self.footage is None or footage is None else {footage: self.footage},
        )
        return Plan(self.recipe, readers, footage), files

    def run(self, names: Sequence[str], fresh: bool = False, workers: int = 2) -> list[Done]:
        """Runs the jobs of these experiments that have no result, or with ``fresh`` all; returns those that failed."""
        plan, files = self.plan()
        console = Console(highlight=False)
        if plan.footage is None:
            console.print("no footage: the split footage is left out (--footage VIDEO)")
        if "relative" in names and (missing := missing_towers(plan)):
            console.print(f"no reader {', '.join(missing)} in evaluation/readers: the experiment relative is left out")
        unique: dict[str, Job] = {}
        for name in names:
            for job in EXPERIMENTS[name](plan):
                unique.setdefault(job.key, job)
        jobs = [job for job in unique.values() if fresh or not job.file(self.results).is_file()]
        console.print(f"{len(jobs)} jobs to run, {len(unique) - len(jobs)} have a result in {self.results}")
        known = {job.key for build in EXPERIMENTS.values() for job in build(plan)}
        if stale := [file.name for file in sorted(self.results.glob("*.json")) if file.stem not in known]:
            console.print(f"{len(stale)} results there are of other parameters and not used: {stale[0]}, ...")
        made = provenance()
        failed: list[Done] = []
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("jobs", total=len(jobs))

            def done(ended: Done) -> None:
                job = ended.job
                if ended.error is None:
                    kept: dict[str, Any] = {"function": job.function, "label": job.label, "parameters": job.parameters}
                    kept |= {"seconds": round(ended.seconds, 2), "cpu_seconds": round(ended.cpu_seconds, 2)}
                    kept |= {"made": made, "result": ended.result}
                    save_json(job.file(self.results), kept)
                else:
                    failed.append(ended)
                outcome = "" if ended.error is None else f"  FAILED: {ended.error[0]}"
                times = f"{ended.seconds:7.1f} s ({ended.cpu_seconds:.1f} s of a core)"
                progress.console.print(f"{times}  {job.label}{outcome}", markup=False)
                progress.advance(bar)

            run_all(jobs, FUNCTIONS, files, workers, done)
        for ended in failed:
            console.print(f"failed: {_describe(ended)}", markup=False)
        return failed

    def report(self) -> list[Path]:
        """Writes the document and its figures from the results that are there."""
        plan, _ = self.plan()
        return write_report(plan, self.results, self.docs)


def _describe(ended: Done) -> str:
    message, details = ended.error or ("", "")
    return f"{_place(ended.job)}: {message}\n{details}".rstrip()


def _place(job: Job) -> str:
    return f"{job.label} ({job.key})"
