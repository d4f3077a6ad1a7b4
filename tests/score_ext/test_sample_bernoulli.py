"""sample_bernoulli: every token by itself, with probability sigmoid(logit)."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from batches import LAYOUTS, SCORE_KINDS, Layout, generator, int32, int64, layouts, scores_of_kind, seeds
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
    seed_tensor = int64(*(seed ^ video for video in range(len(layout.videos)))) if own_seeds else int64(seed)
    arguments = logits, layout.cu_seqlens, num_samples, seed_tensor
    mask, log_prob, count = score_ext.sample_bernoulli(*arguments)
    expected_mask, expected_log_prob, expected_count = reference.sample_bernoulli(*arguments)
    assert torch.equal(mask, expected_mask)
    assert torch.equal(count, expected_count)
    torch.testing.assert_close(log_prob, expected_log_prob, rtol=1e-5, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("length", [255, 256, 257, 511, 513, 40_001])
def test_sizes_around_a_block_of_words(length: int) -> None:
    arguments = torch.randn(length, generator=generator(length)) * 3, int32(0, length), 2, int64(6)
    mask, log_prob, count = score_ext.sample_bernoulli(*arguments)
    expected_mask, expected_log_prob, expected_count = reference.sample_bernoulli(*arguments)
    assert torch.equal(mask, expected_mask)
    assert torch.equal(count, expected_count)
    torch.testing.assert_close(log_prob, expected_log_prob, rtol=1e-6, atol=1e-4)


def test_log_prob_against_float64() -> None:
    logits = torch.cat([torch.linspace(-30, 30, 5001), torch.randn(5000, generator=generator(0)) * 1e-3])
    length = len(logits)
    mask, log_prob, _ = score_ext.sample_bernoulli(logits, int32(0, length), 3, int64(6))
    signed = torch.where(mask, logits.double(), -logits.double())
    exact = torch.nn.functional.logsigmoid(signed).sum(1)
    torch.testing.assert_close(log_prob[:, 0].double(), exact, rtol=1e-6, atol=1e-4)


def test_frequencies() -> None:
    logits = torch.tensor([-3.0, -1.0, 0.0, 0.5, 2.0, 4.0])
    draws = 100_000
    mask, _, count = score_ext.sample_bernoulli(logits, int32(0, 6), draws, int64(20260327))
    p = torch.sigmoid(logits.double())
    frequency = mask.double().mean(0)
    # 4.2 standard errors; the seed is fixed, so it passes always or never.
    assert ((frequency - p).abs() < 4.2 * (p * (1 - p) / draws).sqrt()).all()
    assert torch.equal(count[:, 0], mask.sum(1).int())
    centred = mask.double() - p
    correlation = centred.T @ centred / draws / (p * (1 - p)).sqrt().outer((p * (1 - p)).sqrt())
    assert correlation.triu(1).abs().max() < 4.2 / math.sqrt(draws)


def test_certain_and_impossible_tokens() -> None:
    logits = torch.tensor([math.inf, -math.inf, 200.0, -200.0])
    mask, log_prob, count = score_ext.sample_bernoulli(logits, int32(0, 4), 1000, int64(0))
    assert torch.equal(mask, torch.tensor([True, False, True, False]).expand(1000, 4))
    assert (log_prob == 0).all()
    assert (count == 2).all()


def test_nan_is_never_kept_and_makes_its_video_nan() -> None:
    logits = torch.tensor([0.0, math.nan, 0.0, 1.0])
    mask, log_prob, _ = score_ext.sample_bernoulli(logits, int32(0, 2, 4), 50, int64(0))
    assert not mask[:, 1].any()
    assert log_prob[:, 0].isnan().all()
    assert log_prob[:, 1].isfinite().all()


def test_same_seed_same_tokens_whatever_the_packing() -> None:
    videos = {seed: torch.randn(length) for seed, length in ((11, 40), (12, 1), (13, 300), (14, 0), (15, 77))}
    alone = {
        seed: score_ext.sample_bernoulli(logits, int32(0, len(logits)), 3, int64(seed))
        for seed, logits in videos.items()
    }
    for packing in ([11, 12, 13, 14, 15], [15, 13, 11], [14, 12, 14, 13], [13, 13]):
        offsets = [0, *itertools.accumulate(len(videos[seed]) for seed in packing)]
        logits = torch.cat([videos[seed] for seed in packing])
        mask, log_prob, count = score_ext.sample_bernoulli(logits, int32(*offsets), 3, int64(*packing))
        for video, seed in enumerate(packing):
            part, expected = mask[:, offsets[video] : offsets[video + 1]], alone[seed]
            assert torch.equal(part, expected[0])
            assert torch.equal(log_prob[:, video], expected[1][:, 0])
            assert torch.equal(count[:, video], expected[2][:, 0])


def test_is_a_stream_of_its_own() -> None:
    """The same seed in gumbel_topk must not rank tokens by the numbers that keep them here."""
    length = 4000
    mask, _, _ = score_ext.sample_bernoulli(torch.zeros(length), int32(0, length), 1, int64(1))
    index, _ = score_ext.gumbel_topk(
        torch.zeros(length), int32(0, length), int32(length // 2), 1, int64(1), length // 2
    )
    both = int(mask[0, index[0]].sum())
    # Hypergeometric around length / 4 with standard deviation sqrt(length) / 4, were they independent.
    assert abs(both - length / 4) < 4 * math.sqrt(length) / 4


@pytest.mark.parametrize("name", sorted(LAYOUTS))
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_gradient_equals_reference(name: str, scale: float) -> None:
    layout = LAYOUTS[name]
    weight = torch.randn(3, len(layout.videos), generator=generator(0))
    gradients = []
    for function in (score_ext.sample_bernoulli, reference.sample_bernoulli):
        logits = layout.scores(1, scale).requires_grad_()
        _, log_prob, _ = function(logits, layout.cu_seqlens, 3, int64(2))
        gradients.append(torch.autograd.grad((log_prob * weight).sum(), logits)[0])
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-6)


def test_expected_score_is_zero() -> None:
    """Over all subsets of a small set, P(subset) * grad log P(subset) sums to 0."""
    logits = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    total = torch.zeros(3, dtype=torch.float64)
    seen = set()
    mask, log_prob, _ = score_ext.sample_bernoulli(logits.float(), int32(0, 3), 2000, int64(2))
    for row, value in zip(mask, log_prob[:, 0], strict=True):
        if tuple(row.tolist()) in seen:
            continue
        seen.add(tuple(row.tolist()))
        total += value.double().exp() * (row.double() - torch.sigmoid(logits))
    assert len(seen) == 8
    assert total.abs().max() < 1e-6
