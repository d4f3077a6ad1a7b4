"""gumbel_topk, alone and with the log-probability: the reference's tokens, with Plackett and Luce's probabilities."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from batches import SCORE_KINDS, Layout, int32, int64, layouts, scores_of_kind, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

import score_ext
from score_ext import reference


@settings(max_examples=100, deadline=None)
@given(
    layouts(max_videos=4),
    st.sampled_from(SCORE_KINDS),
    st.integers(1, 4),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    seeds,
)
def test_equals_reference(
    layout: Layout, kind: str, num_samples: int, seed: int, own_seeds: bool, scores_seed: int
) -> None:
    logits = scores_of_kind(kind, layout.length, scores_seed)
    keep, total_keep = layout.keep(scores_seed)
    seed_tensor = int64(*(seed ^ video for video in range(len(layout.videos)))) if own_seeds else int64(seed)
    arguments = logits, layout.cu_seqlens, keep, num_samples, seed_tensor, total_keep
    index, order = score_ext.gumbel_topk(*arguments)
    expected_index, expected_order = reference.gumbel_topk(*arguments)
    assert torch.equal(index, expected_index)
    assert torch.equal(order, expected_order)
    assert torch.equal(index, order.sort(dim=1).values)
    assert torch.equal(score_ext.gumbel_topk_with_log_prob(*arguments)[0], index)


# Around where the order of a draw is sorted digit by digit (1024 kept), and a thread's share of a video (2^16).
@pytest.mark.parametrize(("length", "keep"), [(2000, 1023), (2000, 1024), (2000, 1025), (131073, 300), (70001, 70001)])
@pytest.mark.parametrize("kind", ["normal", "mixed"])
def test_large_videos_equal_reference(length: int, keep: int, kind: str) -> None:
    logits = scores_of_kind(kind, length, seed=keep)
    arguments = logits, int32(0, length), int32(keep), 2, int64(99), keep
    for actual, expected in zip(score_ext.gumbel_topk(*arguments), reference.gumbel_topk(*arguments), strict=True):
        assert torch.equal(actual, expected)


def chi_square_bound(degrees: int) -> float:
    """The 0.999 quantile, by Wilson and Hilferty. Seeds are fixed: a test passes always or never."""
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + 3.0902 * math.sqrt(spread)) ** 3


def plackett_luce_probabilities(logits: list[float], keep: int) -> dict[tuple[int, ...], float]:
    """Of every ordered draw, by multiplying out the definition."""
    weights = [math.exp(logit) for logit in logits]
    probabilities = {}
    for order in itertools.permutations(range(len(logits)), keep):
        probability, remaining = 1.0, sum(weights)
        for token in order:
            probability *= weights[token] / remaining
            remaining -= weights[token]
        probabilities[order] = probability
    return probabilities


@pytest.mark.unsanitized
@pytest.mark.parametrize(
    ("logits", "keep"),
    [
        ([0.0, 0.0, 0.0, 0.0], 2),
        ([1.0, 0.5, -0.3, -1.0, 0.1], 1),
        ([1.0, 0.5, -0.3, -1.0, 0.1], 3),
        ([2.0, 2.0, -1.0, 0.0], 4),
    ],
)
def test_counts_of_ordered_draws(logits: list[float], keep: int) -> None:
    draws = 100_000
    _, order = score_ext.gumbel_topk(
        torch.tensor(logits), int32(0, len(logits)), int32(keep), draws, int64(20260327), keep
    )
    probabilities = plackett_luce_probabilities(logits, keep)
    assert sum(probabilities.values()) == pytest.approx(1)
    rows, counts = order.unique(dim=0, return_counts=True)
    counted = {tuple(row): count for row, count in zip(rows.tolist(), counts.tolist(), strict=True)}
    chi_square = sum(
        (counted.get(drawn, 0) - draws * probability) ** 2 / (draws * probability)
        for drawn, probability in probabilities.items()
    )
    assert chi_square < chi_square_bound(len(probabilities) - 1)


@pytest.mark.unsanitized
def test_videos_are_drawn_independently() -> None:
    """Two videos of one batch, one seed: every pair of first tokens is equally frequent."""
    draws = 60_000
    _, order = score_ext.gumbel_topk(torch.zeros(8), int32(0, 4, 8), int32(1, 1), draws, int64(5), 2)
    counts = torch.bincount(order[:, 0] * 4 + order[:, 1] - 4, minlength=16).double()
    assert float(((counts - draws / 16) ** 2 / (draws / 16)).sum()) < chi_square_bound(15)


def test_seeds_give_independent_draws() -> None:
    draws = torch.stack([score_ext.gumbel_topk(torch.zeros(100), int32(0, 100), int32(1), 1, int64(seed), 1)[0][0]
                         for seed in range(3000)])  # fmt: skip
    counts = torch.bincount(draws.flatten(), minlength=100).double()
    assert float(((counts - 30) ** 2 / 30).sum()) < chi_square_bound(99)


@pytest.mark.parametrize("op", ["gumbel_topk", "gumbel_topk_with_log_prob"])
def test_same_seed_same_tokens_whatever_the_packing(op: str) -> None:
    """With a seed for each video its draw does not depend on the other videos, nor on its place among them."""
    videos = {seed: torch.randn(length) for seed, length in ((11, 40), (12, 1), (13, 300), (14, 0), (15, 77))}
    budgets = {11: 7, 12: 1, 13: 150, 14: 0, 15: 20}
    alone = {}
    for seed, logits in videos.items():
        keep = budgets[seed]
        alone[seed] = getattr(score_ext, op)(logits, int32(0, len(logits)), int32(keep), 3, int64(seed), keep)[0]
    for packing in ([11, 12, 13, 14, 15], [15, 13, 11], [14, 12, 14, 13], [13, 13]):
        lengths = [len(videos[seed]) for seed in packing]
        keep = [budgets[seed] for seed in packing]
        cu_seqlens = int32(0, *itertools.accumulate(lengths))
        logits = torch.cat([videos[seed] for seed in packing])
        index = getattr(score_ext, op)(logits, cu_seqlens, int32(*keep), 3, int64(*packing), sum(keep))[0]
        at = 0
        for video, seed in enumerate(packing):
            part = index[:, at : at + budgets[seed]] - int(cu_seqlens[video])
            assert torch.equal(part, alone[seed])
            at += budgets[seed]


def test_one_seed_depends_on_the_videos_number_but_not_on_other_lengths() -> None:
    logits = torch.randn(50)
    expected = (
        score_ext.gumbel_topk(torch.cat([torch.zeros(9), logits]), int32(0, 9, 59), int32(0, 10), 2, int64(3), 10)[0]
        - 9
    )
    for before in (0, 1, 1000):
        padded = torch.cat([torch.zeros(before), logits])
        index, _ = score_ext.gumbel_topk(padded, int32(0, before, before + 50), int32(0, 10), 2, int64(3), 10)
        assert torch.equal(index - before, expected)
    other, _ = score_ext.gumbel_topk(logits, int32(0, 50), int32(10), 2, int64(3), 10)
    assert not torch.equal(other, expected)


def test_more_samples_keep_the_first_ones() -> None:
    logits = torch.randn(50)
    few, _ = score_ext.gumbel_topk(logits, int32(0, 50), int32(10), 2, int64(3), 10)
    many, _ = score_ext.gumbel_topk(logits, int32(0, 50), int32(10), 20, int64(3), 10)
    assert torch.equal(many[:2], few)
    assert len({tuple(row) for row in many.tolist()}) == 20


def test_infinite_logits_and_nan() -> None:
    logits = torch.tensor([0.0, math.inf, math.nan, -math.inf, 1.0])
    _, order = score_ext.gumbel_topk(logits, int32(0, 5), int32(5), 50, int64(1), 5)
    assert (order[:, 0] == 1).all()  # +inf first
    assert (order[:, 3] == 3).all()  # then the finite ones, then -inf
    assert (order[:, 4] == 2).all()  # NaN last
    assert set(order[:, 1].tolist()) == {0, 4}
