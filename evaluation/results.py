"""The results that there are, looked up the way the document asks for them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from evaluation.experiments import Plan
from evaluation.jobs import Job
from evaluation.needed import Needed, needed_retention
from evaluation.recipe import SCORES, STRATEGIES
from evaluation.statistics import Answers, Difference, Marks, unpack

Kind = tuple[str, bool]
"""A strategy, and whether it divides by the standard deviation."""


@dataclass(frozen=True)
class Cell:
    """An accuracy as the document states it.

    Attributes:
        answers: mean over seeds.
        of_seeds: one for each seed.
    """

    answers: Answers
    of_seeds: tuple[Answers, ...]

    @property
    def by_seed(self) -> tuple[float, ...]:
        """Accuracies, one for each seed."""
        return tuple(one.accuracy for one in self.of_seeds)

    @property
    def accuracy(self) -> float:
        """Mean over seeds, 0 to 1."""
        return self.answers.accuracy


Cells = Mapping[float, Cell]
"""By retention."""


class Results:
    """Results of a plan.

    Args:
        plan: whose.
        experiments: the jobs of each.
        kept: what is kept of each job that has a result, by its key.
    """

    LEAST_TOKENS, MOST_RATIO = 3, 0.6  # a policy that would keep fewer on average, or a larger part, has collapsed

    def __init__(self, plan: Plan, experiments: Mapping[str, list[Job]], kept: Mapping[str, Mapping[str, Any]]) -> None:
        self.plan, self.recipe, self.experiments, self.kept = plan, plan.recipe, experiments, kept
        self.splits = list(plan.recipe.test_videos)
        self.main = next(iter(plan.recipe.policies))
        self._rows: list[Mapping[str, Any]] = []  # of every test, with all that tells it from others
        self._asked: dict[tuple[str, str], Marks] = {}
        for name, jobs in experiments.items():
            for job in jobs:
                if job.key in kept and job.function != "counted":
                    self._add(name, job)

    def _add(self, experiment: str, job: Job) -> None:
        result, test = self.of(job), job.parameters.get("test", {})
        if job.function == "full":
            self._asked[test["reader"], test["split"]] = unpack(result["asked"], tuple(result["shape"]))
        of_job = {"experiment": experiment, "function": job.function, **test, **job.tags}
        self._rows += [{**of_job, **row} for row in result.get("rows", [{**result.get("row", {}), "retention": 1.0}])]

    def complete(self, *experiments: str) -> bool:
        """Whether all results of these are there, and the questions of all tests are known."""
        return all(job.key in self.kept for name in ("full", *experiments) for job in self.experiments[name])

    def of(self, job: Job) -> dict[str, Any]:
        """What a job returned."""
        result: dict[str, Any] = self.kept[job.key]["result"]
        return result

    def _where(self, **wanted: Any) -> list[Mapping[str, Any]]:
        return [row for row in self._rows if all(row.get(name) == value for name, value in wanted.items())]

    def _cell(self, rows: Iterable[Mapping[str, Any]], split: str, reader: str = "shipped") -> Cell:
        """The mean of rows, one for each seed."""
        asked = self._asked[self.plan.readers[reader], split]
        answers = [Answers.of(row, asked) for row in rows]
        return Cell(Answers.mean_of(answers), tuple(answers))

    def cells(self, experiment: str, split: str, reader: str = "shipped", **wanted: Any) -> Cells:
        """The tests on a split and a reader with these tags, over their seeds."""
        rows: dict[float, list[Mapping[str, Any]]] = {}
        for row in self._where(experiment=experiment, split=split, reader=self.plan.readers[reader], **wanted):
            rows.setdefault(row["retention"], []).append(row)
        return {retention: self._cell(of, split, reader) for retention, of in rows.items()}

    def full(self, split: str, reader: str = "shipped") -> Cell:
        """The reader on all tokens of a split."""
        return self.cells("full" if reader == "shipped" else "towers", split, reader, function="full")[1.0]

    def policy(
        self, experiment: str, split: str, selection: str = "systematic", reader: str = "shipped", **tags: Any
    ) -> Cells:
        """The policies with these tags, over their seeds."""
        return self.cells(experiment, split, reader, function="policy", selection=selection, **tags)

    def methods(
        self, split: str, experiment: str = "methods", reader: str = "shipped", oracle: bool = False
    ) -> dict[str, Cells]:
        """Every method without training, by each selection, the best at the largest retention of at most 10% first; or
        the oracle alone."""
        of_reader = {"experiment": experiment, "function": "method", "reader": self.plan.readers[reader]}
        rows = self._where(**of_reader, split=split)
        series = {
            f"{method}, {by}" if method in SCORES else method: self.cells(
                experiment, split, reader, function="method", method=method, selection=by
            )
            for method, by in dict.fromkeys((row["method"], row["selection"]) for row in rows)
            if (method == "oracle") == oracle
        }
        at = max((r for r in self.recipe.retentions if r <= 0.10), default=self.recipe.retentions[0])
        return dict(sorted(series.items(), key=lambda one: -one[1][at].accuracy))

    def needed(self, cells: Cells, split: str, share: float, reader: str = "shipped") -> Needed:
        """The retention at which something keeps a share of the full accuracy."""
        tested = {retention: list(cell.of_seeds) for retention, cell in cells.items()}
        return needed_retention(tested, self.full(split, reader).answers, share)

    def best_method(
        self, split: str, retention: float, experiment: str = "methods", reader: str = "shipped"
    ) -> tuple[str, Cell]:
        """The one with the highest accuracy there, by any selection."""
        series = self.methods(split, experiment, reader)
        best = max(series, key=lambda name: series[name][retention].accuracy)
        return best, series[best][retention]

    def curriculum_gains(self) -> dict[str, dict[float, Difference]]:
        """Stills first minus none, by setting and retention."""
        gains = {}
        for name in self.recipe.curriculum:
            none, first = (
                self.policy("curriculum", self.recipe.one_split, setting=name, curriculum=kind)
                for kind in ("none", "stills first")
            )
            gains[name] = {retention: first[retention].answers.minus(none[retention].answers) for retention in none}
        return gains

    def adaptive(self, name: str) -> list[float]:
        """A figure of the policies that choose the count, of each seed."""
        return [self.of(job)[name] for job in self.experiments["adaptive"]]

    def adaptive_gains(self) -> list[tuple[float, Cell, Cell]]:
        """(retention, a count for each video, the same count for all)."""
        results = [self.of(job) for job in self.experiments["adaptive"]]
        gains = []
        for rows in zip(*(result["equal_mean"] for result in results), strict=True):
            adaptive, fixed = (
                self._cell([row[kind] for row in rows], self.recipe.density_split) for kind in ("adaptive", "fixed")
            )
            gains.append((rows[0]["retention"], adaptive, fixed))
        return gains

    def long_video_gains(self) -> dict[float, Difference]:
        """Compressed by the policy minus full, on long videos."""
        full = self.full("long").answers
        return {r: cell.answers.minus(full) for r, cell in self.policy("policy", "long", policy=self.main).items()}

    @cached_property
    def sweep(self) -> Sweep:
        """The comparison of advantage strategies."""
        trainings = [Training.of(job.tags, self.of(job)) for job in self.experiments["advantages"]]
        return Sweep(trainings, self.recipe.sweep_weights)


@dataclass(frozen=True)
class Training:
    """One short training of the sweep.

    Attributes:
        kind, weight: what was set.
        expected: tokens that the policy would keep, mean over videos; ``ratio``: as a part of all.
        accuracy: when it keeps as many as it expects.
        correlation: rank correlation of its count with what happens in a video.
    """

    kind: Kind
    weight: float
    expected: float
    ratio: float
    accuracy: float
    correlation: float

    @staticmethod
    def of(tags: Mapping[str, Any], result: Mapping[str, Any]) -> Training:
        """From a job's tags and result."""
        set_to = (tags["strategy"], tags["scale"]), tags["weight"]
        measured = (result["expected"], result["expected_ratio"], result["deployed"]["accuracy"], result["correlation"])
        return Training(*set_to, *measured)

    @property
    def collapsed(self) -> bool:
        """Whether it would keep next to nothing, or most."""
        return self.expected < Results.LEAST_TOKENS or self.ratio > Results.MOST_RATIO


@dataclass(frozen=True)
class Sweep:
    """All short trainings."""

    trainings: list[Training]
    weights: tuple[float, ...]

    kinds = tuple((strategy, scale) for scale in (False, True) for strategy in STRATEGIES)

    def at(self, kind: Kind, weight: float) -> list[Training]:
        """The seeds of one setting."""
        return [one for one in self.trainings if (one.kind, one.weight) == (kind, weight)]

    def survivors(self, kind: Kind) -> list[Training]:
        """Those of a kind, at any weight, that did not collapse."""
        return [one for one in self.trainings if one.kind == kind and not one.collapsed]

    def stable_weights(self) -> dict[Kind, int]:
        """At how many of the weights no seed collapsed."""
        return {
            kind: sum(not any(one.collapsed for one in self.at(kind, weight)) for weight in self.weights)
            for kind in self.kinds
        }

    def above_curve(self) -> dict[Kind, Difference]:
        """How far above the common curve of accuracy over retention the surviving trainings of each kind lie.

        The curve is the quadratic in log retention that is closest to all of them, so that strategies are compared at
        equal retention. Mean and its standard error over trainings; only where there are two or more.
        """
        alive = [one for one in self.trainings if not one.collapsed]
        if len(alive) < 4:
            return {}
        x = np.log([one.ratio for one in alive])
        y = np.array([one.accuracy for one in alive])
        design = np.stack([np.ones_like(x), x, x * x], 1)
        rest = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        table = {}
        for kind in self.kinds:
            own = rest[[one.kind == kind for one in alive]]
            if len(own) > 1:
                table[kind] = Difference(float(own.mean()), float(own.std(ddof=1) / math.sqrt(len(own))))
        return table
