"""The study as a whole: finds the files, runs what has no result yet, keeps results, writes the document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console
from rich.progress import track

from evaluation.experiments import Plan, Recipe, media_fingerprint
from evaluation.jobs import Code, Files, Job, Result, StudyError
from evaluation.pool import Done, run_all
from evaluation.report import write_report
from evaluation.results import Results
from evaluation.work import FUNCTIONS
from evaluation.worlds import WORLDS
from score_video.errors import ScoreError
from score_video.files import output_file, sha256_of
from score_video.miniature.train_policy import fingerprint
from score_video.provenance import circumstances


@dataclass(frozen=True)
class Study:
    """A recipe, the files at hand, and where results and documents go.

    Attributes:
        recipe: what is run.
        readers: weights by name; "shipped" among them.
        media: the clip or the folder of features that the recipe names, needed once a job reads it.
        results: the folder of the JSON.
        docs: the folder of the documents and figures.
        code: what is at hand.
        allow_dirty: whether code that is not in the history may run; the document says so then.
    """

    recipe: Recipe
    readers: dict[str, Path]
    media: Path
    results: Path
    docs: Path
    code: Code
    allow_dirty: bool = False

    @cached_property
    def plan(self) -> Plan:
        """What there is to run."""
        readers = {name: fingerprint(name, sha256_of(path)) for name, path in self.readers.items()}
        return Plan(self.recipe, readers, self.code.hash)

    def _files(self, jobs: Sequence[Job]) -> Files:
        """The files of these jobs. Raises StudyError where they need media that are not there, or are others."""
        files = {self.plan.readers[name]: path for name, path in self.readers.items()}
        wanted, named = self.recipe["media"], media_fingerprint(self.recipe)
        if any(named in job.work for job in jobs):
            try:
                identity = WORLDS[self.recipe["world"]].identify(self.media)
                found = f"has {wanted['identified_by']} {identity}"
            except (OSError, ScoreError) as error:
                identity, found = None, f"cannot be read ({error})"
            if identity != wanted["identity"]:
                raise StudyError(
                    f"the {wanted['kind']} must be {wanted['name']} with {wanted['identified_by']} "
                    f"{wanted['identity']} ({wanted['source']}), but {self.media} {found}: give it with --media PATH, "
                    f"or put it into {wanted['path']}"
                )
            files[named] = self.media
        return files

    def _check_code(self) -> None:
        if self.code.changed and not self.allow_dirty:
            first = f"{self.code.changed[0]}{', ...' if len(self.code.changed) > 1 else ''}"
            raise StudyError(
                f"results must come of code that is in the history, but {len(self.code.changed)} files differ from "
                f"commit {self.code.commit}: {first} (commit them, or --allow-dirty, and the document will say so)"
            )

    def _kept(self) -> dict[str, Result]:
        """The results by key: of this code and, but where it is allowed, of code in the history."""
        files = {key: self.results / f"{key}.json" for key in self.plan.jobs_of(self.plan.experiments)}
        kept = {key: json.loads(file.read_text()) for key, file in files.items() if file.is_file()}
        return {key: of for key, of in kept.items() if self.allow_dirty or not of["made"]["changed"]}

    def run(self, names: Sequence[str], workers: int = 2) -> list[Done]:
        """Runs the jobs of these experiments that have no result; returns those that failed.

        Raises StudyError: before anything runs, where the code differs from the commit or a file is not at hand; and
        once the code has been changed while jobs ran.
        """
        self._check_code()
        console, code = Console(highlight=False), self.code
        made = {**circumstances("torch", "transformers"), "commit": code.commit, "changed": list(code.changed)}
        wanted, kept = self.plan.jobs_of(names), self._kept()
        jobs = [job for key, job in wanted.items() if key not in kept]
        files = self._files(jobs)
        console.print(f"{len(jobs)} jobs to run, {len(wanted) - len(jobs)} have a result in {self.results}")
        if unused := len(list(self.results.glob("*.json"))) - len(kept):
            console.print(f"{unused} results there are of other code or parameters and not used")
        failed: list[Done] = []
        for ended in track(run_all(jobs, FUNCTIONS, files, workers), "jobs", total=len(jobs), console=console):
            if code.root is not None and Code.of(code.root).hash != code.hash:
                raise StudyError("the code was changed while jobs ran: those that were under way are not kept")
            times = {"seconds": round(ended.seconds, 2), "cpu_seconds": round(ended.cpu_seconds, 2)}
            if ended.error is None:
                self._keep(ended.job, {**times, "made": made, "result": ended.result})
            else:
                failed.append(ended)
            outcome = f"  FAILED: {ended.error}" if ended.error else ""
            told = f"{ended.seconds:7.1f} s ({ended.cpu_seconds:.1f} s of a core)  {ended.job.label}{outcome}"
            console.print(told, markup=False)
        return failed

    def _keep(self, job: Job, kept: Result) -> None:
        """Keeps a job's result, whole or not at all, and with it what the job was."""
        self.results.mkdir(parents=True, exist_ok=True)
        with output_file(self.results / f"{job.key}.json") as temporary:
            temporary.write_text(json.dumps({**vars(job), "label": job.label, **kept}) + "\n")

    def report(self, partial: bool = False) -> list[Path]:
        """Writes the document and its figures from the results; returns the files.

        Raises StudyError where a result is missing, of other code, or of code that is not in the history: nothing is
        written then. With ``partial`` what there is is written, and the document says at its top what it lacks.
        """
        self._check_code()
        told = self.lacking()
        if told and not partial:
            raise StudyError(f"the document is not written: {told} (--partial writes what there is, and says so)")
        return write_report(Results(self.plan, self._kept()), self.code, told, self.docs)

    def lacking(self) -> str:
        """Which results there are not, or not of this code, or of code that is not in the history; "" if none."""
        kept = self._kept()
        labels = [job.label for key, job in self.plan.jobs_of(self.plan.experiments).items() if key not in kept]
        named = ", ".join(labels[:3] + ["..."] * (len(labels) > 3))
        why = "missing, of other code, or of code that is not in the history"
        return f"{len(labels)} results are {why} ({named})" if labels else ""
