"""The results that there are, looked up the way the document asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from evaluation.experiments import SELECTIONS, Plan, advantage_of
from evaluation.statistics import unpack
from score_video.miniature.world import TASKS
from score_video.statistics import Answers, Difference, Marks, Needed

Cells = Mapping[float, Answers]
"""By retention."""
TIMED = 0.1
"""The retention at which it is told what a choice costs."""
LEAST_TOKENS, MOST_RATIO = 3, 0.6
"""A policy that would keep fewer on average, or a larger part, has collapsed."""


def gains(cells: Cells, base: Cells | Answers) -> dict[float, Difference]:
    """Of one series above another, or above the same answers at every retention."""
    return {at: cell.minus(base if isinstance(base, Answers) else base[at]) for at, cell in cells.items()}


def _milliseconds(tests: pd.DataFrame) -> float:
    return float(tests.loc[tests["retention"] == TIMED, "milliseconds"].median())


class Results:
    """Results of a plan.

    Args:
        plan: all jobs that there could be results of.
        kept: what is kept of each job that has a result, by its key.
    """

    def __init__(self, plan: Plan, kept: Mapping[str, Mapping[str, Any]]) -> None:
        self.plan, self.recipe, self.kept = plan, plan.recipe, kept
        self.splits = list(self.recipe["test_videos"])
        (self.main,) = self.recipe["experiments"]["policy"][0]["arms"]
        self._asked: dict[tuple[str, str], Marks] = {}
        rows: list[dict[str, Any]] = []  # of every test, with all that tells it from others
        for name, job in ((name, job) for name, jobs in plan.experiments.items() for job in jobs if job.key in kept):
            result, test = kept[job.key]["result"], job.parameters.get("test", {})
            if job.function == "full":
                self._asked[test["reader"], test["split"]] = unpack(result["asked"], tuple(result["shape"]))
                result = {"rows": [{**result["row"], "retention": 1.0}]}
            rows += [
                {"experiment": name, "function": job.function, **test, **job.tags, **row}
                for row in result.get("rows", [])
            ]
        self.tests = pd.DataFrame(rows)

    def complete(self, *experiments: str) -> bool:
        """Whether all results of these are there, and the questions of all tests are known."""
        return all(job.key in self.kept for name in ("full", *experiments) for job in self.plan.experiments[name])

    def of(self, experiment: str) -> list[dict[str, Any]]:
        """What the jobs of an experiment returned."""
        return [self.kept[job.key]["result"] for job in self.plan.experiments[experiment]]

    def arms(self, experiment: str, tag: str) -> list[str]:
        """The values of a tag in an experiment, in its order."""
        return list(self.tests.loc[self.tests["experiment"] == experiment, tag].unique())

    def _tests(self, split: str, reader: str, **wanted: str) -> pd.DataFrame:
        """The tests on a split and a reader with these tags."""
        wanted |= {"split": split, "reader": self.plan.readers[reader]}
        return self.tests[np.logical_and.reduce([self.tests[name] == value for name, value in wanted.items()])]

    def _answers(self, right: pd.Series[str], split: str, reader: str = "shipped") -> Answers:
        """The answers of several seeds, as they are kept."""
        asked = self._asked[self.plan.readers[reader], split]
        return Answers(np.stack([unpack(of_seed, asked.shape) for of_seed in right]), asked)

    def _cells(self, tests: pd.DataFrame, split: str, reader: str) -> Cells:
        return {at: self._answers(right, split, reader) for at, right in tests.groupby("retention")["right"]}

    def full(self, split: str, reader: str = "shipped") -> Answers:
        """The reader on all tokens of a split."""
        every = self._tests(split, reader, function="full")["right"]  # a job of several experiments is there for each
        return self._answers(every.head(1), split, reader)

    def policy(
        self, experiment: str, split: str, selection: str = SELECTIONS[0], reader: str = "shipped", **tags: str
    ) -> Cells:
        """The policies with these tags, over their seeds."""
        return self._cells(self._policy_tests(experiment, split, selection, reader, **tags), split, reader)

    def policy_milliseconds(self, experiment: str, split: str, selection: str = SELECTIONS[0], **tags: str) -> float:
        """What a choice from one video takes of a core at ``TIMED``, the median over the seeds of :meth:`policy`."""
        return _milliseconds(self._policy_tests(experiment, split, selection, "shipped", **tags))

    def _policy_tests(self, experiment: str, split: str, selection: str, reader: str, **tags: str) -> pd.DataFrame:
        return self._tests(split, reader, experiment=experiment, function="policy", selection=selection, **tags)

    def methods(
        self, split: str, experiment: str = "methods", reader: str = "shipped", oracle: bool = False
    ) -> dict[str, Cells]:
        """Every method without training, by each selection, the best at the largest retention of at most 10% first; or
        the oracle alone."""
        tests = self._method_tests(split, experiment, reader)
        series = {name: self._cells(of, split, reader) for name, of in tests.items() if (name == "oracle") == oracle}
        at = max((r for r in self.recipe["retentions"] if r <= 0.10), default=self.recipe["retentions"][0])
        return dict(sorted(series.items(), key=lambda one: -one[1][at].accuracy))

    def method_milliseconds(self, split: str) -> dict[str, float]:
        """As :meth:`policy_milliseconds`, of every method."""
        return {name: _milliseconds(tests) for name, tests in self._method_tests(split, "methods", "shipped").items()}

    def _method_tests(self, split: str, experiment: str, reader: str) -> dict[str, pd.DataFrame]:
        """By the method's name and, where it scores, the selection's."""
        tests = self._tests(split, reader, experiment=experiment, function="method")
        return {
            method if pd.isna(selection) else f"{method}, {selection}": of
            for (method, selection), of in tests.groupby(["method", "selection"], sort=False, dropna=False)
        }

    def series(self, split: str) -> dict[str, Cells]:
        """Everything tested on a split: the policy by every selection, methods without training, the oracle."""
        by = {f"**{self.main}, {by}**": self.policy("policy", split, by) for by in SELECTIONS}
        return by | self.methods(split) | self.methods(split, oracle=True)

    def best_method(
        self, split: str, retention: float, experiment: str = "methods", reader: str = "shipped"
    ) -> tuple[str, Answers]:
        """The one with the highest accuracy there, by any selection."""
        series = self.methods(split, experiment, reader)
        best = max(series, key=lambda name: series[name][retention].accuracy)
        return best, series[best][retention]

    def by_task(self) -> dict[str, float]:
        """The reader's accuracy on all tokens, by split and task."""
        shares = {
            f"{split} {task.name}": of
            for split in self.splits
            for task, of in zip(TASKS, self.full(split).by_task, strict=True)
        }
        return {where: share for where, share in shares.items() if not np.isnan(share)}

    def needed(self, cells: Cells, split: str, *shares: float) -> list[Needed]:
        """The retention at which something keeps each of these shares of the full accuracy."""
        return [self.full(split).needed(cells, share) for share in shares]

    def needed_at_best(self, split: str, share: float) -> tuple[Needed, str, Needed]:
        """What the policy needs, and which method without training needs least, and how much."""
        methods = {name: self.needed(cells, split, share)[0] for name, cells in self.methods(split).items()}
        best = min(methods, key=lambda name: methods[name].value)
        return self.needed(self.policy("policy", split), split, share)[0], best, methods[best]

    def curriculum_gains(self) -> dict[str, dict[float, Difference]]:
        """Stills first minus none, by setting and retention."""
        table = {}
        for setting in self.arms("curriculum", "setting"):
            none, first = (
                self.policy("curriculum", self.recipe["one_split"], setting=setting, curriculum=kind)
                for kind in ("none", "stills first")
            )
            table[setting] = gains(first, none)
        return table

    def adaptive_gains(self) -> list[tuple[float, Answers, Answers]]:
        """(retention, a count for each video, the same count for all)."""
        split = self.plan.experiments["adaptive"][0].parameters["test"]["split"]
        rows = pd.DataFrame([row for result in self.of("adaptive") for row in result["equal_mean"]])
        return [
            (at, *(self._answers(of[kind].str["right"], split) for kind in ("adaptive", "fixed")))
            for at, of in rows.groupby("retention")
        ]

    @cached_property
    def sweep(self) -> pd.DataFrame:
        """The short trainings that compare advantage strategies: their settings and seed; kind, their name; expected,
        tokens that the policy would keep, mean over videos; ratio, as a part of all; accuracy, when it keeps as many
        as it expects; correlation of its count with what happens in a video; and whether it collapsed: it would keep
        next to nothing, or most."""
        rows = []
        for job, result in zip(self.plan.experiments["advantages"], self.of("advantages"), strict=True):
            kind = f"{job.tags['advantage']} (scaled)" if job.tags["scale_rewards"] else job.tags["advantage"]
            of = {"kind": kind, "expected": result["expected"], "ratio": result["expected_ratio"]}
            rows.append(
                {**job.tags, **of, "accuracy": result["deployed"]["accuracy"], "correlation": result["correlation"]}
            )
        sweep = pd.DataFrame(rows)
        sweep["collapsed"] = (sweep["expected"] < LEAST_TOKENS) | (sweep["ratio"] > MOST_RATIO)
        return sweep

    def stable_weights(self) -> dict[str, int]:
        """For each kind, at how many of the weights no seed collapsed."""
        collapsed = self.sweep.groupby(["kind", "compression_weight"], sort=False)["collapsed"].any()
        return dict((~collapsed).groupby("kind", sort=False).sum())

    def above_curve(self) -> dict[str, Difference]:
        """How far above the common curve of accuracy over retention the surviving trainings of each kind lie.

        The curve is the quadratic in log retention that is closest to all of them, so that strategies are compared at
        equal retention. Mean and its standard error over trainings; only where there are two or more.
        """
        alive = self.sweep[~self.sweep["collapsed"]]
        if len(alive) < 4:
            return {}
        x = np.log(alive["ratio"])
        rest = alive["accuracy"] - np.polyval(np.polyfit(x, alive["accuracy"], 2), x)
        table = rest.groupby(alive["kind"], sort=False).agg(["mean", "sem", "size"])
        return {kind: Difference(mean, error) for kind, mean, error, size in table.itertuples() if size > 1}

    def best_split(self) -> tuple[int, str, Difference] | None:
        """What splitting the reward gains at equal retention: how many strategies split, the best one, how far it lies
        above leave_one_out. None where it cannot be told."""
        above, settings = self.above_curve(), self.sweep.drop_duplicates("kind").set_index("kind")
        splits = [kind for kind in above if advantage_of(settings.loc[kind]) not in ("leave_one_out", "joint")]
        if not splits or "leave_one_out" not in above:
            return None
        best, single = max(splits, key=lambda kind: above[kind].value), above["leave_one_out"]
        error = float(np.hypot(above[best].error, single.error))
        return len(splits), best, Difference(above[best].value - single.value, error)
