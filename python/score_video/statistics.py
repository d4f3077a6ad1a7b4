"""Statistics over videos, whose questions are not independent of each other: errors of shares, and the retention that
is needed for a share of the full accuracy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor


def ratio_error(value: Tensor, count: Tensor) -> float:
    """Standard error of sum(value) / sum(count), where videos are drawn independently: the usual one of a ratio of
    sums, since videos ask different numbers of questions.

    Args:
        value: [V], what the questions of each video come to: how many are right, or a difference of two such.
        count: [V], how many questions each video asks.

    Returns:
        NaN for a single video.
    """
    value, count = value.double(), count.double()
    videos = len(value)
    if videos < 2:
        return math.nan
    deviation = value - value.sum() / count.sum() * count
    return float(deviation.square().sum().sqrt() / count.sum()) * math.sqrt(videos / (videos - 1))


@dataclass(frozen=True)
class Needed:
    """A retention, 0 to 1, and the bounds of its interval: 16% and 84% of the bootstrap's draws, as of one standard
    error. ``least`` is the smallest retention that was tested: a value of it means that or less.

    As text, in %: 3.1% (2.9 to 3.4), or 1.0% or less."""

    value: float
    low: float
    high: float
    least: float

    def __str__(self) -> str:
        value, low, high = (f"{100 * share:.1f}" for share in (self.value, self.low, self.high))
        return f"{value}% or less" if self.value <= self.least else f"{value}% ({low} to {high})"


DRAWS = 400
"""Of the bootstrap."""


def needed_retention(
    retentions: Sequence[float], right: npt.ArrayLike, full: npt.ArrayLike, asked: npt.ArrayLike, share: float
) -> Needed:
    """The least retention from which on the accuracy is at least ``share`` of the full one: a measure that does not
    saturate.

    Between the retentions that were tested accuracy is taken as linear in log retention; at 1 it is the full one. The
    bootstrap draws videos, the same ones at every retention, and among the seeds of a policy.

    Args:
        retentions: ascending, below 1.
        right: [R, S, V], how many questions about each video were answered rightly at each retention, with each seed.
        full: [V], the same on all tokens.
        asked: [V], how many there are.
        share: above 0, at most 1.
    """
    right, full, asked = (np.asarray(values, float) for values in (right, full, asked))
    x = np.log([*retentions, 1.0])

    def crossing(videos: npt.NDArray[np.float64], seeds: npt.NDArray[np.float64]) -> float:
        """With these weights of videos [V] and seeds [S]."""
        accuracy = (right @ videos) @ seeds / (asked @ videos)  # [R]
        whole = float(full @ videos / (asked @ videos))
        y = np.array([*accuracy, whole])
        below = np.flatnonzero(y < share * whole)
        if not len(below):
            return retentions[0]
        last = below[-1]  # of what comes after it all is enough, up to the full accuracy
        part = (share * whole - y[last]) / (y[last + 1] - y[last])
        return math.exp(x[last] + part * (x[last + 1] - x[last]))

    num_seeds, num_videos = right.shape[1:]
    generator = np.random.default_rng(0)
    value = crossing(np.ones(num_videos), np.full(num_seeds, 1 / num_seeds))
    drawn = [
        crossing(
            generator.multinomial(num_videos, np.full(num_videos, 1 / num_videos)).astype(float),
            generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds)) / num_seeds,
        )
        for _ in range(DRAWS)
    ]
    low, high = np.quantile(drawn, [0.16, 0.84])
    return Needed(value, float(low), float(high), retentions[0])
