"""The few statistics that the study needs."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from score_video.statistics import ratio_error

Floats = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]


def pack(marks: Marks) -> str:
    """Booleans as base64, row by row."""
    return base64.b64encode(np.packbits(marks).tobytes()).decode()


def unpack(text: str, shape: tuple[int, ...]) -> Marks:
    """The inverse of :func:`pack`."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)


class Difference(NamedTuple):
    """Of two accuracies, and its standard error."""

    value: float
    error: float

    @property
    def clear(self) -> bool:
        """Whether it is above 0 by more than two standard errors."""
        return self.value > 2 * self.error

    def __neg__(self) -> Difference:
        return Difference(-self.value, self.error)


@dataclass(frozen=True)
class Answers:
    """Which questions were answered rightly.

    Attributes:
        right: [videos, tasks], 0 or 1, or a mean over several policies; 0 where nothing was asked.
        asked: bool [videos, tasks].
    """

    right: Floats
    asked: Marks

    @staticmethod
    def of(row: Mapping[str, Any], asked: Marks) -> Answers:
        """From a row of a result."""
        return Answers(unpack(row["right"], asked.shape).astype(float), asked)

    @staticmethod
    def mean_of(several: list[Answers]) -> Answers:
        """The mean over policies; all asked the same."""
        return Answers(np.mean([answers.right for answers in several], axis=0), several[0].asked)

    @property
    def accuracy(self) -> float:
        """Share of all questions."""
        return float(self.right.sum() / self.asked.sum())

    @property
    def by_task(self) -> Floats:
        """[tasks]; NaN where a task was never asked."""
        asked = self.asked.sum(0)
        return np.where(asked > 0, self.right.sum(0) / np.maximum(asked, 1), np.nan)

    @property
    def standard_error(self) -> float:
        """Of the accuracy, over videos: the questions of one video are not independent."""
        return ratio_error(*map(torch.from_numpy, (self.right.sum(1), self.asked.sum(1))))

    def minus(self, other: Answers) -> Difference:
        """The difference in accuracy on the same questions, and its standard error over videos."""
        if not np.array_equal(self.asked, other.asked):
            raise ValueError("only answers to the same questions can be compared")
        difference = self.right - other.right
        error = ratio_error(*map(torch.from_numpy, (difference.sum(1), self.asked.sum(1))))
        return Difference(float(difference.sum() / self.asked.sum()), error)


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """Rank correlation, ties at their mean rank; NaN where one of the two does not vary."""
    a, b = (_ranks(np.asarray(values, float)) for values in (x, y))
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 0 else float("nan")


def _ranks(values: Floats) -> Floats:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray(((last - counts + 1 + last) / 2)[group.ravel()], float)


def share_out(weights: npt.ArrayLike, total: int, longest: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """``total`` tokens shared out in proportion to weights, each video at least 1 and at most all of its own.

    Exact: what rounding down leaves goes to the largest remainders (the lower index first).

    Args:
        weights: [B], above 0.
        total: from B to the sum of ``longest``.
        longest: integers [B].
    """
    w, most = np.asarray(weights, float), np.asarray(longest, np.int64)
    if not len(w) <= total <= most.sum():
        raise ValueError(f"total must lie between {len(w)} and {most.sum()}, got {total}")
    if not (w > 0).all():
        raise ValueError(f"weights must be above 0, got {w.min()}")
    low, high = 0.0, float((most / w).max())
    for _ in range(200):  # the scale at which the bounded shares sum to the total, from below
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * w, 1, most).sum() <= total else (low, middle)
    share = np.clip(low * w, 1, most)
    counts = np.floor(share).astype(np.int64)
    order = np.argsort(-(share - counts), kind="stable")
    order = order[counts[order] < most[order]]
    counts[order[: total - counts.sum()]] += 1
    assert counts.sum() == total
    return counts
