"""The retention that a method needs to keep a share of the full accuracy, from the study's answers."""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.statistics import Answers
from score_video import statistics
from score_video.statistics import Needed


def needed_retention(tested: Mapping[float, Answers], full: Answers, share: float) -> Needed:
    """:func:`score_video.statistics.needed_retention` over all tasks.

    Args:
        tested: by retention below 1, the answers of all seeds; to the same questions as ``full``.
        full: on all tokens.
        share: above 0, at most 1.
    """
    retentions = sorted(tested)
    right = [[*tested[retention].right.sum(2)] for retention in retentions]  # [R][S], each [V]
    return statistics.needed_retention(retentions, right, full.mean.sum(1), full.asked.sum(1), share)
