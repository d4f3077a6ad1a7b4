"""What is told of several measurements of one thing."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from bench.markdown import number


@dataclass(frozen=True)
class Time:
    """The median of the repeats, and their interquartile range, in the unit in which they were measured."""

    median: float
    spread: float

    @staticmethod
    def of(values: Sequence[float]) -> Time:
        """Of one value or more."""
        if len(values) == 1:
            return Time(values[0], 0.0)
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return Time(median, high - low)

    def told(self, times: float = 1.0) -> str:
        """As documents have it, each multiplied by ``times``."""
        return f"{number(times * self.median)} ± {number(times * self.spread)}"
