"""The retention that a method needs to keep a share of the full accuracy: a measure that does not saturate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evaluation.statistics import Answers, Floats

DRAWS = 400
"""Of the bootstrap."""


@dataclass(frozen=True)
class Needed:
    """A retention, 0 to 1, and the bounds of its interval: 16% and 84% of the bootstrap's draws, as of one standard
    error. ``least`` is the smallest retention that was tested: a value of it means that or less."""

    value: float
    low: float
    high: float
    least: float


def needed_retention(tested: Mapping[float, Answers], full: Answers, share: float) -> Needed:
    """The least retention from which on the accuracy is at least ``share`` of the full one.

    Between the retentions that were tested accuracy is taken as linear in log retention; at 1 it is the full one. The
    bootstrap draws videos, the same ones at every retention, and among the seeds of a policy.

    Args:
        tested: by retention below 1, the answers; to the same questions as ``full``.
        full: on all tokens.
        share: above 0, at most 1.
    """
    retentions = sorted(tested)
    right = np.stack([tested[r].right.sum(2) for r in retentions]).astype(float)  # [R, S, V]
    of_full, asked = full.mean.sum(1), full.asked.sum(1).astype(float)  # [V]
    x = np.log([*retentions, 1.0])

    def crossing(videos: Floats, seeds: Floats) -> float:
        """With these weights of videos [V] and seeds [S]."""
        accuracy = (right @ videos) @ seeds / (asked @ videos)  # [R]
        whole = float(of_full @ videos / (asked @ videos))
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
