"""The retention that is needed, by hand; and that its interval holds what is true."""

from __future__ import annotations

import math

import numpy as np
import pytest

from evaluation.statistics import Answers
from score_video.statistics import Needed


def answers(*accuracies: float, videos: int = 1000, seed: int | None = None) -> Answers:
    """Of one question a video, by policies of these accuracies: the first are right, or as many by chance."""
    places = np.arange(videos) / videos if seed is None else np.random.default_rng(seed).random(videos)
    right = np.stack([places < accuracy - 1e-9 for accuracy in accuracies])
    return Answers(right[..., None], np.ones((videos, 1), bool))


FULL = answers(0.9)


def test_as_text() -> None:
    assert str(Needed(0.031, 0.029, 0.034, 0.01)) == "3.1% (2.9 to 3.4)"
    assert str(Needed(0.01, 0.01, 0.02, 0.01)) == "1.0% or less"


def test_between_two_retentions_accuracy_is_linear_in_the_logarithm() -> None:
    tested = {0.25: answers(0.9), 0.05: answers(0.8), 0.1: answers(0.87)}
    found = FULL.needed(tested, 0.95)  # 0.855: 55 of 70 thousandths of the way from 5 to 10%
    assert found.value == pytest.approx(math.exp(math.log(0.05) + 55 / 70 * math.log(2)))
    assert found.low <= found.value <= found.high and found.least == 0.05


def test_above_the_largest_it_goes_on_to_all_tokens_and_below_the_smallest_it_ends() -> None:
    found = FULL.needed({0.1: answers(0.8), 0.25: answers(0.85)}, 0.99)  # 0.891 of 0.85 to 0.9
    assert found.value == pytest.approx(math.exp(math.log(0.25) + 41 / 50 * math.log(4)))
    least = FULL.needed({0.1: answers(0.9), 0.25: answers(0.9)}, 0.99)
    assert (least.value, least.low, least.high, least.least) == (0.1, 0.1, 0.1, 0.1)


def test_a_dip_counts() -> None:
    """What was enough at 5% but not at 10% needs more than 10%."""
    tested = {0.05: answers(0.9), 0.1: answers(0.8), 0.25: answers(0.9)}
    assert 0.1 < FULL.needed(tested, 0.99).value < 0.25


def test_seeds_are_averaged_and_their_spread_is_in_the_interval() -> None:
    one = FULL.needed({0.05: answers(0.7), 0.5: answers(0.9)}, 0.95)
    same = FULL.needed({0.05: answers(0.7, 0.7, 0.7), 0.5: answers(0.9, 0.9, 0.9)}, 0.95)
    apart = FULL.needed({0.05: answers(0.6, 0.7, 0.8), 0.5: answers(0.88, 0.9, 0.92)}, 0.95)
    assert one.value == pytest.approx(same.value) == pytest.approx(apart.value)
    assert apart.high - apart.low > 1.5 * (same.high - same.low)


def test_the_interval_is_that_of_a_standard_error() -> None:
    """Over many draws of the videos the true value lies within it about two times in three."""
    true = math.exp(math.log(0.05) + 0.5 * math.log(4))  # 0.8 of 0.75 .. 0.85, of a full accuracy of 1
    within = 0
    for seed in range(40):
        tested = {0.05: answers(0.75, videos=400, seed=seed), 0.2: answers(0.85, videos=400, seed=1000 + seed)}
        found = answers(1.0, videos=400).needed(tested, 0.8)
        within += found.low <= true <= found.high
    assert 17 <= within <= 36
