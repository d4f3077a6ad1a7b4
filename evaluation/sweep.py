"""The comparison of advantage strategies, summed up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.found import Found
from evaluation.recipe import STRATEGIES

LEAST_TOKENS = 3.0
MOST_RATIO = 0.6
"""A policy that would keep fewer tokens on average, or a larger part, has collapsed."""

Kind = tuple[str, bool]
"""A strategy, and whether it divides by the standard deviation."""


def kind_name(kind: Kind) -> str:
    """As tables call it."""
    return f"{kind[0]} (scaled)" if kind[1] else kind[0]


@dataclass(frozen=True)
class Run:
    """One short training.

    Attributes:
        strategy, scale, weight, seed: what was set.
        expected: tokens that it would keep, mean over videos; ``ratio``: as a part of all.
        accuracy: when it keeps as many as it expects.
        correlation: rank correlation of its count with what happens in a video.
    """

    strategy: str
    scale: bool
    weight: float
    seed: int
    expected: float
    ratio: float
    accuracy: float
    correlation: float

    @staticmethod
    def of(tags: Mapping[str, Any], result: Mapping[str, Any]) -> Run:
        """From a job's tags and result."""
        return Run(
            tags["strategy"],
            tags["scale"],
            tags["weight"],
            tags["seed"],
            result["expected"],
            result["expected_ratio"],
            result["deployed"]["accuracy"],
            result["correlation"],
        )

    @property
    def collapsed(self) -> bool:
        """Whether it kept next to nothing, or most of everything."""
        return self.expected < LEAST_TOKENS or self.ratio > MOST_RATIO


class Sweep:
    """All short trainings."""

    def __init__(self, found: Found) -> None:
        self.weights = found.plan.recipe.sweep_weights
        self.kinds: list[Kind] = [(strategy, scale) for scale in (False, True) for strategy in STRATEGIES]
        self.runs = [Run.of(job.tags, found.result(job)) for job in found.jobs["advantages"]]

    def at(self, kind: Kind, weight: float) -> list[Run]:
        """The seeds of one setting."""
        return [run for run in self.runs if (run.strategy, run.scale, run.weight) == (*kind, weight)]

    def weights_held(self) -> dict[Kind, int]:
        """At how many of the weights no seed collapsed."""
        return {
            kind: sum(not any(run.collapsed for run in self.at(kind, weight)) for weight in self.weights)
            for kind in self.kinds
        }

    def survivors(self, kind: Kind) -> list[Run]:
        """The runs of a kind, at any weight, that did not collapse."""
        return [run for run in self.runs if (run.strategy, run.scale) == kind and not run.collapsed]

    def beyond_curve(self) -> dict[Kind, tuple[float, float]]:
        """How far above the common curve of accuracy over retention the surviving runs of each kind lie.

        The curve is the quadratic in log retention that is closest to all surviving runs, so that strategies are
        compared at equal retention. Mean and its standard error over runs; only where there are two or more.
        """
        alive = [run for run in self.runs if not run.collapsed]
        if len(alive) < 4:
            return {}
        x = np.log([run.ratio for run in alive])
        y = np.array([run.accuracy for run in alive])
        design = np.stack([np.ones_like(x), x, x * x], 1)
        rest = y - design @ np.linalg.lstsq(design, y, rcond=None)[0]
        table = {}
        for kind in self.kinds:
            own = rest[[(run.strategy, run.scale) == kind for run in alive]]
            if len(own) > 1:
                table[kind] = float(own.mean()), float(own.std(ddof=1) / math.sqrt(len(own)))
        return table
