"""Accuracies, their differences and the retention that is needed: by hand, and that intervals hold what is true."""

from __future__ import annotations

import math

import numpy as np
import pytest

from score_video.statistics import Answers, Difference, Needed

ASKED_FEW = np.array([[True, True], [True, False], [True, True], [True, False]])
RIGHT = np.array([[True, True], [False, False], [True, False], [True, False]])


def test_answers_by_hand() -> None:
    answers = Answers(RIGHT[None], ASKED_FEW)
    assert answers.accuracy == pytest.approx(4 / 6) and answers.by_seed == pytest.approx([4 / 6])
    assert answers.by_task == pytest.approx([3 / 4, 1 / 2])
    # residuals 2 - 2 * 2/3, 0 - 2/3, 1 - 2 * 2/3, 1 - 2/3; their squares sum to 10/9; times 4/3, root, over 6
    error = np.sqrt(10 / 9 * 4 / 3) / 6
    assert str(answers) == f"66.7 ± {100 * error:.1f}"
    none = Answers(np.zeros_like(RIGHT[None]), ASKED_FEW)
    gain = answers.minus(none)
    assert (gain.value, gain.error) == pytest.approx((4 / 6, error))
    assert answers.minus(answers) == Difference(0, 0)
    both = Answers(np.stack([RIGHT, np.zeros_like(RIGHT)]), ASKED_FEW)
    assert both.accuracy == pytest.approx(2 / 6) and str(both) == "33.3 (0.0 to 66.7)"
    with pytest.raises(ValueError, match="same questions"):
        answers.minus(Answers(RIGHT[None], np.ones_like(ASKED_FEW)))


def test_a_task_that_is_never_asked_has_no_accuracy() -> None:
    answers = Answers(RIGHT[None] & [True, False], ASKED_FEW & [True, False])
    assert answers.by_task[0] == 3 / 4 and np.isnan(answers.by_task[1])


def test_videos_with_as_many_questions_have_the_usual_standard_error() -> None:
    right = np.random.default_rng(0).random((50, 3)) < 0.5
    answers, none = (Answers(of[None], np.ones((50, 3), bool)) for of in (right, np.zeros_like(right)))
    assert answers.minus(none).error == pytest.approx(right.mean(1).std(ddof=1) / np.sqrt(50))


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
