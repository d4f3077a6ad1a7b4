"""The results that are there, looked up the way the document asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.experiments import EXPERIMENTS, Plan
from evaluation.jobs import Job, load_results
from evaluation.recipe import METHODS_WITH_LAW
from evaluation.statistics import Answers, Marks, unpack


@dataclass(frozen=True)
class Cell:
    """An accuracy as the document states it.

    Attributes:
        answers: mean over seeds.
        by_seed: accuracies, one for each seed.
    """

    answers: Answers
    by_seed: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Mean over seeds, 0 to 1."""
        return self.answers.accuracy


@dataclass(frozen=True)
class Series:
    """One line of a table: cells by retention."""

    name: str
    cells: Mapping[float, Cell]


class Found:
    """Results of a plan.

    Args:
        plan: whose jobs.
        folder: of the JSON.
        experiments: the jobs of each experiment; None: those of the plan.
    """

    def __init__(self, plan: Plan, folder: Path, experiments: Mapping[str, list[Job]] | None = None) -> None:
        self.plan = plan
        self.jobs = {name: build(plan) for name, build in EXPERIMENTS.items()} if experiments is None else experiments
        self.kept = load_results(folder, [job for jobs in self.jobs.values() for job in jobs])
        self._asked: dict[tuple[str, str], Marks] = {}
        for job in (*self.jobs["full"], *self.jobs["relative"]):
            if job.function == "full" and job.key in self.kept:
                result, test = self.result(job), job.parameters["test"]
                self._asked[test["reader"], test["split"]] = unpack(result["asked"], tuple(result["shape"]))

    def has(self, experiment: str) -> bool:
        """Whether an experiment is complete, and the questions of all its tests are known."""
        jobs = self.jobs[experiment]
        return bool(jobs) and all(job.key in self.kept for job in (*jobs, *self.jobs["full"]))

    def missing(self, experiment: str) -> str:
        """What is missing, in words."""
        jobs = self.jobs[experiment]
        there = sum(job.key in self.kept for job in jobs)
        return f"Not run: {there} of {len(jobs)} results are there." if jobs else "Not run."

    def result(self, job: Job) -> dict[str, Any]:
        """What a job returned."""
        result: dict[str, Any] = self.kept[job.key]["result"]
        return result

    def where(self, experiment: str, **tags: Any) -> list[Job]:
        """The jobs of an experiment with these tags."""
        return [job for job in self.jobs[experiment] if all(job.tags.get(name) == tags[name] for name in tags)]

    def cell(self, rows: Iterable[Mapping[str, Any]], split: str, reader: str = "shipped") -> Cell:
        """The mean of rows, one for each seed."""
        asked = self._asked[self.plan.readers[reader], split]
        answers = [Answers.of(row, asked) for row in rows]
        return Cell(Answers.mean_of(answers), tuple(one.accuracy for one in answers))

    def full(self, split: str, reader: str = "shipped") -> Cell:
        """The reader on all tokens of a split."""
        test = self.plan.test(split, reader)
        jobs = (*self.jobs["full"], *self.jobs["relative"])
        job = next(job for job in jobs if job.function == "full" and job.parameters["test"] == test)
        return self.cell([self.result(job)["row"]], split, reader)

    def policy(
        self, experiment: str, split: str, law: str = "systematic", reader: str = "shipped", **tags: Any
    ) -> dict[float, Cell]:
        """Cells by retention of the policies with these tags, over their seeds."""
        of_reader = self.plan.readers[reader]
        rows: dict[float, list[Mapping[str, Any]]] = {}
        for job in self.where(experiment, **tags):
            if job.function == "policy":
                for row in self.result(job)["rows"]:
                    if (row["split"], row["law"], row["reader"]) == (split, law, of_reader):
                        rows.setdefault(row["retention"], []).append(row)
        return {retention: self.cell(of, split, reader) for retention, of in rows.items()}

    def rivals(
        self, split: str, experiment: str = "methods", reader: str = "shipped", oracle: bool = False
    ) -> list[Series]:
        """Every rival by each of its laws, the best at the largest retention of at most 10% first; or the oracle."""
        series = []
        for job in self.where(experiment, split=split):
            if job.function != "method" or (job.parameters["method"] == "oracle") != oracle:
                continue
            if job.parameters["test"]["reader"] != self.plan.readers[reader]:
                continue
            for law in job.parameters["laws"]:
                rows = [row for row in self.result(job)["rows"] if row["law"] == law]
                cells = {
                    retention: self.cell([row for row in rows if row["retention"] == retention], split, reader)
                    for retention in job.parameters["retentions"]
                }
                method = job.parameters["method"]
                series.append(Series(f"{method}, {law}" if method in METHODS_WITH_LAW else method, cells))
        at = max((r for r in self.plan.recipe.retentions if r <= 0.10), default=self.plan.recipe.retentions[0])
        return sorted(series, key=lambda one: -one.cells[at].accuracy)

    def best_rival(
        self, split: str, retention: float, experiment: str = "methods", reader: str = "shipped"
    ) -> tuple[str, Cell]:
        """The rival, by any law, with the highest accuracy there."""
        rivals = self.rivals(split, experiment, reader)
        best = max(rivals, key=lambda one: one.cells[retention].accuracy)
        return best.name, best.cells[retention]

    def commits(self, experiments: Iterable[str]) -> list[str]:
        """At which commits the results of these experiments were made: what policies are may have changed since."""
        jobs = [job for name in experiments for job in self.jobs[name]]
        return sorted({str(self.kept[job.key]["made"]["commit"]) for job in jobs if job.key in self.kept})

    def made(self) -> tuple[list[str], float, int]:
        """Where the results were made (a line for each machine and its versions), seconds of a core, and jobs."""
        lines: dict[str, list[Mapping[str, Any]]] = {}
        for kept in self.kept.values():
            made = kept["made"]
            where = (
                f"{made['cpu']}, {made['cores']} cores; torch {made['torch']}, transformers {made['transformers']}, "
                f"Python {made['python']}, score-video {made['score']}"
            )
            lines.setdefault(where, []).append(made)
        texts = []
        for where, several in lines.items():
            dates, commits = (sorted({str(made[name]) for made in several}) for name in ("date", "commit"))
            texts.append(f"{where}; {' to '.join(dict.fromkeys((dates[0], dates[-1])))}; commit {', '.join(commits)}")
        return texts, float(np.sum([kept["cpu_seconds"] for kept in self.kept.values()])), len(self.kept)
