"""The study as a whole: finds the files, runs what has no result yet, keeps results, writes the document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from evaluation.experiments import Plan, Recipe, footage_fingerprint, reader_names
from evaluation.jobs import ROOT, Code, Files, Job, fingerprint, load_results, save_result, sha256_of, work_of
from evaluation.pool import Done, run_all
from evaluation.report import write_report
from evaluation.results import Results
from evaluation.work import FUNCTIONS
from score_video.provenance import circumstances

READERS = ROOT / "evaluation" / "readers"


class StudyError(Exception):
    """The study cannot be run, or its document not be written; the message says what is wanted."""


def find_readers(recipe: Recipe, shipped: Path, folder: Path = READERS) -> dict[str, Path]:
    """The readers that a recipe names, by name. Raises StudyError where one is not there."""
    names = reader_names(recipe)
    readers = {name: shipped if name == "shipped" else folder / f"{name}.safetensors" for name in names}
    for name, path in readers.items():
        if not path.is_file():
            raise StudyError(f"there is no reader {name}: {path} is no file (evaluation/readers/make.sh makes it)")
    return readers


@dataclass(frozen=True)
class Study:
    """A recipe, the files at hand, and where results and documents go.

    Attributes:
        recipe: what is run.
        readers: weights by name; "shipped" among them.
        footage: the clip that the recipe names; None: not given, which is an error once a job needs it.
        results: the folder of the JSON.
        docs: the folder of results.md and its figures.
        code: what is at hand.
        allow_dirty: whether code that is not in the history may run; the document says so then.
    """

    recipe: Recipe
    readers: dict[str, Path]
    footage: Path | None
    results: Path
    docs: Path
    code: Code
    allow_dirty: bool = False

    @cached_property
    def plan(self) -> Plan:
        """What there is to run."""
        readers = {name: fingerprint(name, sha256_of(path)) for name, path in self.readers.items()}
        return Plan(self.recipe, readers, self.code.hash)

    @cached_property
    def experiments(self) -> dict[str, list[Job]]:
        """The jobs of each."""
        return self.plan.experiments()

    def _files(self, jobs: Sequence[Job]) -> Files:
        """The files of these jobs. Raises StudyError where they need a clip that was not given, or is another."""
        files = {self.plan.readers[name]: path for name, path in self.readers.items()}
        wanted, named = self.recipe["footage"], footage_fingerprint(self.recipe)
        if not any(named in job.work for job in jobs):
            return files
        of_it = f"the split footage needs {wanted['name']} with SHA-256 {wanted['sha256']} ({wanted['source']})"
        if self.footage is None or not self.footage.is_file():
            found = "none was given" if self.footage is None else f"there is no file {self.footage}"
            raise StudyError(f"{of_it}, but {found}: give it with --footage PATH, or put it into evaluation/footage/")
        if (sha256 := sha256_of(self.footage)) != wanted["sha256"]:
            raise StudyError(
                f"{of_it}, but {self.footage} has SHA-256 {sha256}: give the right one with --footage PATH"
            )
        return {**files, named: self.footage}

    def _check_code(self) -> None:
        if self.code.changed and not self.allow_dirty:
            first = f"{self.code.changed[0]}{', ...' if len(self.code.changed) > 1 else ''}"
            raise StudyError(
                f"results must come of code that is in the history, but {len(self.code.changed)} files differ from "
                f"commit {self.code.commit}: {first} (commit them, or --allow-dirty, and the document will say so)"
            )

    def _jobs(self, names: Sequence[str]) -> dict[str, Job]:
        """The jobs of these experiments, by key: each once."""
        return {job.key: job for name in names for job in self.experiments[name]}

    def _usable(self, kept: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Of kept results those of this code and, but where it is allowed, of code in the history."""
        own = {key: kept[key] for key in self._jobs(list(self.experiments)) if key in kept}
        return {key: of for key, of in own.items() if self.allow_dirty or not of["made"]["changed"]}

    def run(self, names: Sequence[str], fresh: bool = False, workers: int = 2) -> list[Done]:
        """Runs the jobs of these experiments that have no result, or with ``fresh`` all; returns those that failed.

        Raises StudyError: before anything runs, where the code differs from the commit or a file is not at hand; and
        once the code has been changed while jobs ran.
        """
        console = Console(highlight=False)
        code, made = self.code, circumstances("torch", "transformers")
        self._check_code()
        wanted, kept = self._jobs(names), load_results(self.results)
        usable = self._usable(kept)
        jobs = [job for key, job in wanted.items() if fresh or key not in usable]
        files = self._files(jobs)
        console.print(f"{len(jobs)} jobs to run, {len(wanted) - len(jobs)} have a result in {self.results}")
        if unused := sorted(set(kept) - set(self._jobs(list(self.experiments)))):
            console.print(f"{len(unused)} results there are of other code or parameters and not used: {unused[0]}, ...")
        made |= {"commit": code.commit, "changed": list(code.changed)}
        failed: list[Done] = []
        for ended in track(run_all(jobs, FUNCTIONS, files, workers), "jobs", total=len(jobs), console=console):
            if code.root is not None and Code.of(code.root).hash != code.hash:
                raise StudyError("the code was changed while jobs ran: those that were under way are not kept")
            times = {"seconds": round(ended.seconds, 2), "cpu_seconds": round(ended.cpu_seconds, 2)}
            if ended.error is None:
                save_result(self.results, ended.job, {**times, "made": made, "result": ended.result})
            else:
                failed.append(ended)
            outcome = f"  FAILED: {ended.error}" if ended.error else ""
            told = f"{ended.seconds:7.1f} s ({ended.cpu_seconds:.1f} s of a core)  {ended.job.label}{outcome}"
            console.print(told, markup=False)
        return failed

    def report(self, partial: bool = False) -> list[Path]:
        """Writes the document and its figures from the results; returns the files.

        Raises StudyError where a result is missing, of other code, or of code that is not in the history: nothing is
        written then. With ``partial`` what there is is written, and the document says at its top what it lacks.
        """
        self._check_code()
        told = self.lacking()
        if told and not partial:
            raise StudyError(f"the document is not written: {told} (--partial writes what there is, and says so)")
        results = Results(self.plan, self.experiments, self._usable(load_results(self.results)))
        return write_report(results, self.code, told, self.docs)

    def lacking(self) -> str:
        """Which results there are not, or not of this code, or of code that is not in the history; "" if none."""
        kept = load_results(self.results)
        usable, works = self._usable(kept), {work_of(of) for of in kept.values()}
        dirty, stale, missing = "of code that is not in the history", "stale, of other code", "missing"
        labels: dict[str, list[str]] = {dirty: [], stale: [], missing: []}
        for key, job in self._jobs(list(self.experiments)).items():
            if key not in usable:
                labels[dirty if key in kept else stale if job.work in works else missing].append(job.label)
        named = {reason: ", ".join(of[:3] + ["..."] * (len(of) > 3)) for reason, of in labels.items()}
        return "; ".join(f"{len(of)} results are {reason} ({named[reason]})" for reason, of in labels.items() if of)
