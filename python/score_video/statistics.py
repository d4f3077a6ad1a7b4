"""Errors of shares over videos, whose questions are not independent of each other."""

from __future__ import annotations

import math

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
