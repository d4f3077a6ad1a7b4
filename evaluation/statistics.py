"""The few statistics that the study needs."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from score_video.statistics import Needed, needed_retention, ratio_error

Floats = npt.NDArray[np.float64]
Marks = npt.NDArray[np.bool_]


def pack(marks: Marks) -> str:
    """Booleans as base64, row by row."""
    return base64.b64encode(np.packbits(marks).tobytes()).decode()


def unpack(text: str, shape: tuple[int, ...]) -> Marks:
    """The inverse of :func:`pack`."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)


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
    def by_task(self) -> list[float]:
        """The accuracy in each task; NaN where it was never asked."""
        asked = self.asked.sum(0)
        return [float(share) for share in np.where(asked > 0, self.mean.sum(0) / np.maximum(asked, 1), np.nan)]

    def minus(self, other: Answers) -> Difference:
        """The difference in accuracy on the same questions. Its standard error is one over videos: the questions of
        one video are not independent."""
        if not np.array_equal(self.asked, other.asked):
            raise ValueError("only answers to the same questions can be compared")
        return _share(self.mean - other.mean, self.asked)

    def needed(self, tested: Mapping[float, Answers], share: float) -> Needed:
        """The retention at which tested answers to the same questions keep a share of the accuracy of these, which are
        on all tokens (:func:`score_video.statistics.needed_retention`)."""
        retentions = sorted(tested)
        right = [[*tested[retention].right.sum(2)] for retention in retentions]  # [R][S], each [V]
        return needed_retention(retentions, right, self.mean.sum(1), self.asked.sum(1), share)

    def __str__(self) -> str:
        text = spread(self.by_seed, 1, 100)
        return text if len(self.right) > 1 else f"{text} ± {100 * _share(self.mean, self.asked).error:.1f}"


def _share(right: Floats, asked: Marks) -> Difference:
    """Of all questions, with its standard error over videos."""
    error = ratio_error(*map(torch.from_numpy, (right.sum(1), asked.sum(1))))
    return Difference(float(right.sum() / asked.sum()), error)


def share_out(weights: npt.ArrayLike, total: int, longest: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """``total`` tokens shared out in proportion to weights, each video at least 1 and at most all of its own.

    Exact, in whole tokens, by Sainte-Laguë's method: each goes to the video with the largest weight / (tokens + 1/2).

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
    tokens = np.arange(1, max(2, most.max()))  # that a video has before it gets another one
    claims = np.where(tokens < most[:, None], w[:, None] / (tokens + 0.5), -np.inf)
    winners = np.argsort(-claims, axis=None, kind="stable")[: total - len(w)] // len(tokens)
    return np.asarray(1 + np.bincount(winners, minlength=len(w)), np.int64)
