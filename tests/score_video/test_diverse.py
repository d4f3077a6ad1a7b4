"""Selection "diverse": against the rule written out, against DivPrune, and its gradient against autograd's."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import score_ext
from score_video import Compressor, diverse
from score_video.errors import ScoreError
from score_video.methods import find_method
from score_video.packed import PackedVideos
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.whitened import whitened


def videos_of(*frames: int, seed: int = 0) -> PackedVideos:
    """Videos of so many frames of 2 x 3 tokens, 5 wide."""
    generator = torch.Generator().manual_seed(seed)
    return PackedVideos.from_frames([torch.randn(count, 2, 3, 5, generator=generator) for count in frames])


def select(videos: PackedVideos, logits: Tensor, keep: list[int], weight: float = diverse.WEIGHT) -> Tensor:
    return diverse.select(videos, logits, torch.tensor(keep, dtype=torch.int32), sum(keep), weight)


def written_out(tokens: Tensor, logits: Tensor, keep: int, weight: float = diverse.WEIGHT) -> list[int]:
    """The rule in float64, all distances at once, of tokens that are whitened already."""
    unit = torch.nn.functional.normalize(tokens.double(), dim=1)
    distances = 1 - unit @ unit.T
    nearest = 1 - unit @ torch.nn.functional.normalize(unit.sum(0), dim=0)
    kept: list[int] = []
    for _ in range(keep):
        score = logits.double() + weight * nearest.clamp(min=1e-6).log()
        score[kept] = -math.inf
        kept.append(int(score.argmax()))
        nearest = distances[kept].amin(0)
    return sorted(kept)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(0, 4), min_size=1, max_size=3),
    st.floats(0, 1),
    st.sampled_from([0.5, diverse.WEIGHT, 8.0]),
)
def test_keeps_what_the_rule_says(seed: int, frames: list[int], share: float, weight: float) -> None:
    videos = videos_of(*frames, seed=seed)
    logits = torch.randn(len(videos.tokens), generator=torch.Generator().manual_seed(seed + 1))
    keep = [round(share * length) for length in videos.lengths.tolist()]
    index, white = select(videos, logits, keep, weight), whitened(videos.tokens, videos.cu_seqlens)
    ends = videos.cu_seqlens.tolist()
    wanted = [
        begin + row
        for begin, end, count in zip(ends[:-1], ends[1:], keep, strict=True)
        for row in written_out(white[begin:end], logits[begin:end], count, weight)
    ]
    assert index.tolist() == wanted


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(0, 9), min_size=1, max_size=4),
    st.floats(0, 1),
    st.sampled_from([(1, 1), (5, 1), (7, 2), (18, 3), (18, 100), (1000, 1)]),
)
def test_long_videos_are_selected_by_windows(
    seed: int, frames: list[int], share: float, sizes: tuple[int, int]
) -> None:
    """Windows of a video are as equal as can be, and are selected each by itself."""
    most, least = sizes
    videos = videos_of(*frames, seed=seed)
    logits = 3 * torch.randn(len(videos.tokens), generator=torch.Generator().manual_seed(seed + 1))
    keep = [round(share * length) for length in videos.lengths.tolist()]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(diverse, "WINDOW", most)
        patched.setattr(diverse, "LEAST", least)
        index = select(videos, logits, keep, 8.0)
    budgets, white = torch.tensor(keep, dtype=torch.int32), whitened(videos.tokens, videos.cu_seqlens)
    spread = score_ext.select(logits, videos.cu_seqlens, budgets, selection="systematic").tolist()
    wanted = []
    for (begin, end), kept in zip(itertools.pairwise(videos.cu_seqlens.tolist()), keep, strict=True):
        count = min(-(-(end - begin) // most), max(1, kept // least))
        ends = [begin + number * (end - begin) // count for number in range(count + 1)] if count else []
        for first, last in itertools.pairwise(ends):
            own = sum(first <= row < last for row in spread)
            wanted += [first + row for row in written_out(white[first:last], logits[first:last], own, 8.0)]
    assert index.tolist() == wanted


def test_with_equal_logits_it_is_divprune() -> None:
    videos = videos_of(4, 0, 3)
    keep = torch.tensor([7, 0, 5], dtype=torch.int32)
    index = select(videos, torch.full((len(videos.tokens),), 0.3), keep.tolist())
    of_divprune = find_method("divprune-whitened").index(
        videos.tokens, videos.cu_seqlens, videos.tokens_per_frame, keep
    )
    assert torch.equal(index, of_divprune)


def test_copies_of_a_kept_token_come_last() -> None:
    tokens = torch.eye(6)[[0, 0, 0, 1, 2, 0]].view(1, 2, 3, 6)
    index = select(PackedVideos.from_frames([tokens]), torch.tensor([9.0, 9.0, 9.0, 0.0, 0.0, 9.0]), [3])
    assert index.tolist() == [0, 3, 4]


@pytest.mark.parametrize("floats", [1, 1 << 22])
def test_gradient_equals_autograds(floats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Computed for one draw at a time, and for all."""
    monkeypatch.setattr(diverse, "_FLOATS_AT_ONCE", floats)
    videos = videos_of(2, 3)
    logits = torch.randn(len(videos.tokens))
    keep, samples = [4, 5], 3
    order = diverse.sample(videos, logits, keep, samples, [1, 2])
    weights = torch.randn(samples, 2)
    leaf = logits.clone().requires_grad_()
    value = diverse.log_prob(leaf, videos, keep, order)
    (gradient,) = torch.autograd.grad((value * weights).sum(), leaf)

    other = logits.clone().requires_grad_()
    total, white = torch.zeros(samples, 2), whitened(videos.tokens, videos.cu_seqlens)
    for video, (own, first) in enumerate(((slice(0, 12), 0), (slice(12, 30), 4))):
        unit = torch.nn.functional.normalize(white[own], dim=1)
        for sample in range(samples):
            rows = (order[sample, first : first + keep[video]] - own.start).tolist()
            nearest = 1 - unit @ torch.nn.functional.normalize(unit.sum(0), dim=0)
            for draw, row in enumerate(rows):
                score = other[own] + diverse.WEIGHT * nearest.log()
                score = score.index_fill(0, torch.tensor(rows[:draw], dtype=torch.int64), -math.inf)
                total[sample, video] += score.log_softmax(0)[row]
                nearest = (1 - unit @ unit[rows[: draw + 1]].T).amin(1).clamp(min=0.01)
    torch.testing.assert_close(value, total)
    (wanted,) = torch.autograd.grad((total * weights).sum(), other)
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=1e-6)


def test_far_tokens_are_drawn_more_often() -> None:
    """Of two tokens that are left, in proportion to powers of their distances to the first."""
    angles = torch.tensor([0.0, 0.4, 1.2])
    tokens = torch.stack([angles.cos(), angles.sin()], 1)
    videos = PackedVideos.from_frames([tokens.view(1, 1, 3, 2)])
    samples = 20_000
    order = diverse.sample(videos, torch.tensor([50.0, 0.0, 0.0]), [2], samples, [3])
    assert (order[:, 0] == 0).all()
    white = torch.nn.functional.normalize(whitened(tokens, videos.cu_seqlens), dim=1)
    near, far = ((1 - white[0] @ white[1:].T) ** diverse.WEIGHT).tolist()
    expected = far / (near + far)
    frequency = float((order[:, 1] == 2).float().mean())
    assert abs(frequency - expected) <= 4.5 * math.sqrt(expected * (1 - expected) / samples)


@pytest.mark.parametrize("weight", [0.5, diverse.WEIGHT, 8.0])
def test_infinite_and_missing_logits(weight: float) -> None:
    """Classes come whole, one after another, each spread by distance; no token comes twice."""
    videos = videos_of(2)
    logits = torch.tensor([math.inf] * 3 + [0.0] * 4 + [-math.inf, math.nan] * 2 + [-math.inf])
    for keep in range(13):
        rows = select(videos, logits, [keep], weight).tolist()
        assert len(set(rows)) == keep
        assert set(rows) >= set(range(min(keep, 3))) if keep >= 3 else set(rows) <= {0, 1, 2}
        assert keep < 7 or set(rows) >= set(range(7))
    still = PackedVideos.from_frames([torch.ones(3, 2, 2, 5)])
    kept = Compressor("surprise-l2", 1.0, selection="diverse").select(still)
    assert kept.index.tolist() == list(range(12))


def test_a_budget_beyond_a_video() -> None:
    videos = videos_of(2)
    with pytest.raises(ValueError, match=r"keep must be 0 .. 12 for video 0 of so many tokens, got 13"):
        select(videos, torch.zeros(12), [13])
    with pytest.raises(ScoreError, match=r"keep must be at most each video's length, \[12\], got \[13\]"):
        diverse.sample(videos, torch.zeros(12), [13], 2, [0])
    with pytest.raises(ScoreError, match="keep must be at most 12, the tokens of video 0, got 13"):
        Compressor("surprise-l2", selection="diverse").select(videos, keep=[13])


def test_a_compressor_selects_by_it() -> None:
    videos = videos_of(4)
    policy = SurprisePolicy(SurprisePolicyConfig(state="relative"))
    selection = Compressor(policy, 0.25, selection="diverse").select(videos)
    with torch.no_grad():
        assert torch.equal(selection.index, select(videos, policy(videos), [6]))
    policy.config.distance_weight = 50.0
    flat = Compressor(policy, 0.25, selection="diverse").select(videos)
    with torch.no_grad():
        assert torch.equal(flat.index, select(videos, policy(videos), [6], 50.0))
    scores = Compressor("surprise-l2", 0.25, selection="diverse").select(videos)
    logits = find_method("surprise-l2").scores(videos.tokens, videos.cu_seqlens, videos.tokens_per_frame, scores.keep)
    assert torch.equal(scores.index, select(videos, logits.log(), [6]))
    with pytest.raises(ScoreError, match="selection must be None for 'divprune'"):
        Compressor("divprune", selection="diverse")
