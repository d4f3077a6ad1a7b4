"""Scoring what picks tokens: exact budgets for all, accuracies and their errors by hand."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import pytest
import torch
from helpers.readers import tiny_reader
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from score_ext.budget import keep_count
from score_video.compressor import Compressor
from score_video.methods import METHODS, IndexMethod, RandomMethod
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.miniature.evaluate import (
    Accuracy,
    Choose,
    batches_of_split,
    budgets,
    choose_by,
    choose_by_method,
    choose_by_policy,
    encode_split,
    evaluate,
    evaluate_counts,
    oracle,
)
from score_video.miniature.world import LIVE_THINGS, NOT_ASKED, TASK_NAMES, TASKS
from score_video.packed import PackedVideos
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.rl.environment import EncodedBatch, Selection


@pytest.fixture(scope="module")
def environment() -> MiniatureEnvironment:
    return MiniatureEnvironment(tiny_reader())


@pytest.fixture(scope="module")
def batch(environment: MiniatureEnvironment) -> EncodedBatch:
    """Of 16 and 64 frames."""
    of = (("lookalike", 0), ("static", 1), ("long", 2), ("density", 3), ("plain", 4))
    return environment.encode([MiniatureVideos(split, "test", 0, 9)[number] for split, number in of])


def policy() -> SurprisePolicy:
    torch.manual_seed(0)
    return SurprisePolicy(SurprisePolicyConfig(token_width=8))


def kept_of_each(index: Tensor, batch: EncodedBatch) -> list[int]:
    return torch.bincount(batch.videos.video_of_token[index], minlength=batch.videos.num_videos).tolist()


CHOICES = {
    "policy": lambda: choose_by_policy(policy()),
    "policy, topk": lambda: choose_by_policy(policy(), "topk"),
    **{name: lambda name=name: choose_by_method(name, seed=3) for name in (*METHODS, "oracle")},
}


@pytest.mark.parametrize("name", list(CHOICES))
@pytest.mark.parametrize("retention", [0.02, 0.1, 1.0])
def test_budgets_are_exact(batch: EncodedBatch, name: str, retention: float) -> None:
    if name == "divprune" and retention == 1.0:
        pytest.skip("seconds, for nothing new")
    choose: Choose = CHOICES[name]()
    keep = budgets(batch, retention)
    assert keep.tolist() == [keep_count(frames, 36, retention) for frames in (16, 16, 64, 16, 16)]
    index = choose(batch, keep)
    assert index.dtype == torch.int64
    assert (index.diff() > 0).all()
    assert kept_of_each(index, batch) == keep.tolist()


def test_a_retention_that_is_none(batch: EncodedBatch) -> None:
    for retention in (0.0, 1.01, math.nan):
        with pytest.raises(ValueError, match="retention"):
            budgets(batch, retention)


def test_methods_choose_as_they_do_elsewhere(batch: EncodedBatch) -> None:
    videos, keep = batch.videos, budgets(batch, 0.1)
    packed = (videos.tokens, videos.cu_seqlens, videos.tokens_per_frame, keep)
    assert torch.equal(choose_by_method("norm")(batch, keep), METHODS["norm"].index(*packed))
    spread = METHODS["norm"].index(*packed, selection="systematic")
    assert torch.equal(choose_by_method("norm", "systematic")(batch, keep), spread)
    assert torch.equal(choose_by_method("random", seed=4)(batch, keep), RandomMethod(4).index(*packed))
    for name in ("oracle", *(name for name, method in METHODS.items() if isinstance(method, IndexMethod))):
        with pytest.raises(ValueError, match=f"{name} selects by a rule of its own and takes no selection, got 'topk'"):
            choose_by_method(name, "topk")
    with pytest.raises(ValueError, match="there is no method 'orakel'"):
        choose_by_method("orakel")


class First:
    """A selector that is nothing of ours: each video's first tokens."""

    def __init__(self, needs_question: bool) -> None:
        self.needs_question = needs_question
        self.question: Tensor | None = None

    def select(
        self, videos: PackedVideos, question: Tensor | None = None, keep: Sequence[int] | None = None
    ) -> Selection:
        assert keep is not None
        self.question = question
        starts = videos.cu_seqlens[:-1].tolist()
        rows = [torch.arange(count) + start for start, count in zip(starts, keep, strict=True)]
        return Selection(torch.cat(rows), torch.tensor(keep, dtype=torch.int32))


@pytest.mark.parametrize("asks", [False, True])
def test_anything_that_selects_can_be_scored(environment: MiniatureEnvironment, asks: bool) -> None:
    (batch,) = batches_of_split(environment, "plain", "test", 0, 3, one_question=True)
    selector = First(asks)
    accuracy = evaluate(environment, [batch], choose_by(selector), 0.1)
    assert accuracy.kept == int(budgets(batch, 0.1).sum())
    assert (selector.question is batch.question) if asks else selector.question is None
    compressor = Compressor("norm", selection="systematic")
    keep = budgets(batch, 0.1)
    assert torch.equal(choose_by(compressor)(batch, keep), choose_by_method("norm", "systematic")(batch, keep))


def test_the_oracle_knows_what_matters(environment: MiniatureEnvironment) -> None:
    (batch,) = encode_split(environment, "lookalike", "test", 0, 40)
    live = batch.payload.shown[:, list(LIVE_THINGS)].sum(1) >= 4
    keep = budgets(batch, 0.1)
    assert live[oracle(batch, keep)].float().mean() > 2.5 * live.float().mean()
    # every thing that is asked about is among what it keeps
    index = oracle(batch, budgets(batch, 0.25))
    for thing in LIVE_THINGS:
        there = batch.payload.shown[:, thing] >= 4
        with_it = batch.videos.video_of_token[there].unique()
        seen = batch.videos.video_of_token[index[there[index]]].unique()
        assert len(seen) >= 0.9 * len(with_it)


def test_accuracy_counts_what_is_asked(environment: MiniatureEnvironment) -> None:
    batches = encode_split(environment, "lookalike", "test", 3, 66)
    assert [batch.videos.num_videos for batch in batches] == [64, 2]
    accuracy = evaluate(environment, batches, choose_by_method("uniform"), 0.1)
    assert (accuracy.kept, accuracy.tokens) == (66 * 57, 66 * 576)
    answers = torch.cat([batch.payload.answers for batch in batches])
    right = torch.zeros(len(TASKS), dtype=torch.int64)
    correct = []
    for batch in batches:
        keep = budgets(batch, 0.1)
        selection = Selection(choose_by_method("uniform")(batch, keep), keep[None])
        best = environment.log_probabilities(batch, selection)[0].argmax(2)
        right += ((best == batch.payload.answers) & (batch.payload.answers != NOT_ASKED)).sum(0)
        correct.append(environment.answer(batch, selection).correct[0])
    assert torch.equal(accuracy.right, right)
    assert torch.equal(accuracy.asked, (answers != NOT_ASKED).sum(0))
    of_video = torch.where(accuracy.results == 1, 1.0, 0.0).sum(1) / (accuracy.results != NOT_ASKED).sum(1)
    assert torch.allclose(of_video, torch.cat(correct))


def test_everything_is_the_same_as_choosing_everything(environment: MiniatureEnvironment) -> None:
    batches = encode_split(environment, "static", "test", 3, 6)
    full = evaluate(environment, batches, None)
    assert torch.equal(full.results, evaluate(environment, batches, choose_by_method("norm"), 1.0).results)
    assert full.kept == full.tokens == 6 * 576
    assert set(full.by_task) == {"glyph", "tint", "quadrant"}


def test_any_count_for_each_video(environment: MiniatureEnvironment) -> None:
    batches = encode_split(environment, "static", "test", 3, 3)
    counts = torch.tensor([1, 0, 576], dtype=torch.int32)
    accuracy = evaluate_counts(environment, batches, choose_by_method("random"), [counts])
    assert accuracy.kept == 577
    full = evaluate(environment, batches, None)
    assert torch.equal(accuracy.results[2], full.results[2])


def test_batches_are_the_videos_in_order(environment: MiniatureEnvironment) -> None:
    batches = list(batches_of_split(environment, "long", "validation", 2, 18))
    assert [batch.videos.num_videos for batch in batches] == [16, 2]
    answers = environment.world("long", "validation", 2).videos(range(18)).answers
    assert torch.equal(torch.cat([batch.payload.answers for batch in batches]), answers)
    (asked,) = batches_of_split(environment, "plain", "test", 2, 8, one_question=True)
    assert asked.question is not None
    with pytest.raises(ValueError, match="split must be one of"):
        next(batches_of_split(environment, "plane", "test", 2, 8))


def accuracy_of(*videos: list[int]) -> Accuracy:
    return Accuracy(torch.tensor(videos, dtype=torch.int8), 5 * len(videos), 10 * len(videos), TASK_NAMES)


def test_accuracy_by_hand() -> None:
    width = len(TASKS)
    first = [1, 0, 1] + [NOT_ASKED] * (width - 3)
    second = [1, 1, NOT_ASKED] + [NOT_ASKED] * (width - 3)
    accuracy = accuracy_of(first, second)
    assert accuracy.mean == 0.8
    assert accuracy.by_task == {"direction": 1.0, "flash": 0.5, "count": 1.0}
    # deviations 2 - 0.8 * 3 and 2 - 0.8 * 2 of 5 questions
    assert accuracy.standard_error == pytest.approx(math.sqrt(0.4**2 + 0.4**2) / 5 * math.sqrt(2))
    joined = Accuracy.join([accuracy, accuracy_of(first)])
    assert torch.equal(joined.results, accuracy_of(first, second, first).results)
    assert (joined.kept, joined.tokens) == (15, 30)
    assert math.isnan(accuracy_of(first).standard_error)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 100))
def test_the_error_is_what_means_vary_by(seed: int) -> None:
    """Videos of 3 to 6 questions that are right together: the error is larger than that of as many questions alone."""
    numbers = random.Random(seed)

    def sample(count: int) -> Accuracy:
        rows = []
        for _ in range(count):
            chance, asked = numbers.choice([0.5, 0.95]), numbers.randint(3, 6)
            right = [int(numbers.random() < chance) for _ in range(asked)]
            rows.append(right + [NOT_ASKED] * (len(TASKS) - asked))
        return accuracy_of(*rows)

    means = torch.tensor([sample(60).mean for _ in range(300)])
    errors = torch.tensor([sample(60).standard_error for _ in range(50)])
    assert float(errors.mean()) == pytest.approx(float(means.std()), rel=0.2)
