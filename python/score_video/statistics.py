"""Statistics over videos, whose questions are not independent of each other: accuracies and their differences with
errors, and the retention that is needed for a share of the full accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]


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


def spread(values: Iterable[float], digits: int = 2, scale: float = 1.0) -> str:
    """Mean, least and most of plain numbers: 0.81 (0.78 to 0.83)."""
    every = list(values)
    mean, low, high = (f"{scale * of:.{digits}f}" for of in (sum(every) / len(every), min(every), max(every)))
    return mean if len(every) == 1 else f"{mean} ({low} to {high})"


@dataclass(frozen=True)
class Difference:
    """Of two accuracies, and its standard error; as text in points: +1.2 ± 0.3."""

    value: float
    error: float

    @property
    def clear(self) -> bool:
        """Whether it is above 0 by more than two standard errors."""
        return self.value > 2 * self.error

    def __neg__(self) -> Difference:
        return Difference(-self.value, self.error)

    def __str__(self) -> str:
        return f"{100 * self.value:+.1f} ± {100 * self.error:.1f}"


@dataclass(frozen=True)
class Answers:
    """Which questions were answered rightly, by a policy of each seed, or by one method.

    As text, in %: 97.8 (97.6 to 98.1), the mean, least and most of several seeds; 97.8 ± 0.3, with the standard error,
    of one.

    Attributes:
        right: bool [seeds, videos, tasks]; False where nothing was asked.
        asked: bool [videos, tasks].
    """

    right: Marks
    asked: Marks

    @property
    def mean(self) -> Floats:
        """[videos, tasks], over seeds."""
        return np.asarray(self.right.mean(0), float)

    @property
    def by_seed(self) -> list[float]:
        """The accuracy of each seed, 0 to 1."""
        return [float(share) for share in self.right.sum((1, 2)) / self.asked.sum()]

    @property
    def accuracy(self) -> float:
        """Share of all questions, mean over seeds."""
        return float(self.mean.sum() / self.asked.sum())

    @property
    def standard_error(self) -> float:
        """Of :attr:`accuracy`, over videos (:func:`ratio_error`); NaN for a single video."""
        return _share(self.mean, self.asked).error

    @property
    def by_task(self) -> list[float]:
        """The accuracy in each task; NaN where it was never asked."""
        asked = self.asked.sum(0)
        return [float(share) for share in np.where(asked > 0, self.mean.sum(0) / np.maximum(asked, 1), np.nan)]

    def minus(self, other: Answers) -> Difference:
        """The difference in accuracy on the same questions, with its standard error over videos.

        Raises:
            ValueError: the questions are not the same.
        """
        if not np.array_equal(self.asked, other.asked):
            raise ValueError("only answers to the same questions can be compared")
        return _share(self.mean - other.mean, self.asked)

    def needed(self, tested: Mapping[float, Answers], share: float) -> Needed:
        """The retention at which tested answers to the same questions keep a share of the accuracy of these, which are
        on all tokens (:func:`needed_retention`)."""
        retentions = sorted(tested)
        right = [[*tested[retention].right.sum(2)] for retention in retentions]  # [R][S], each [V]
        return needed_retention(retentions, right, self.mean.sum(1), self.asked.sum(1), share)

    def __str__(self) -> str:
        text = spread(self.by_seed, 1, 100)
        return text if len(self.right) > 1 else f"{text} ± {100 * self.standard_error:.1f}"


def _share(right: Floats, asked: Marks) -> Difference:
    """Of all questions, with its standard error over videos."""
    error = ratio_error(*map(torch.from_numpy, (right.sum(1), asked.sum(1))))
    return Difference(float(right.sum() / asked.sum()), error)
