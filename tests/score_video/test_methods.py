"""The training-free methods, against their definitions spelled out in numpy and against cases worked by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from score_video.methods import METHODS, IndexMethod, RandomMethod, ScoreMethod, find_method, frame_budgets


def pack(*videos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Videos [T, N, D] -> tokens [L, D], cu_seqlens, tokens_per_frame."""
    ends = np.cumsum([0, *(v.shape[0] * v.shape[1] for v in videos)])
    tokens = torch.cat([v.reshape(-1, v.shape[2]) for v in videos])
    return (
        tokens,
        torch.tensor(ends, dtype=torch.int32),
        torch.tensor([v.shape[1] for v in videos], dtype=torch.int32),
    )


def keep_of(*counts: int) -> Tensor:
    return torch.tensor(counts, dtype=torch.int32)


def one_video(method: str, video: Tensor, keep: int, **options: object) -> list[int]:
    return find_method(method).index(*pack(video), keep_of(keep), **options).tolist()  # type: ignore[arg-type]


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(list(METHODS)),
    sizes=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    data=st.data(),
)
def test_exact_budgets_of_ragged_batches(
    name: str, sizes: list[tuple[int, int]], dtype: torch.dtype, data: st.DataObject
) -> None:
    torch.manual_seed(0)
    videos = [torch.randn(t, n, 6).to(dtype) for t, n in sizes]
    counts = [data.draw(st.integers(0, t * n)) for t, n in sizes]
    tokens, cu, per_frame = pack(*videos)
    index = METHODS[name].index(tokens, cu, per_frame, keep_of(*counts))
    assert index.dtype == torch.int64
    assert (index.diff() > 0).all()
    assert [((index >= a) & (index < b)).sum().item() for a, b in pairwise(cu)] == counts
    # nothing of one video reaches another: each by itself keeps the same
    if name != "random":  # its draws depend on the video's number in the batch
        for i, video in enumerate(videos):
            alone = METHODS[name].index(*pack(video), keep_of(counts[i]))
            mine = index[(index >= cu[i]) & (index < cu[i + 1])] - cu[i]
            assert torch.equal(alone, mine)


@pytest.mark.parametrize("name", list(METHODS))
def test_edges(name: str) -> None:
    video = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(1))
    assert one_video(name, video, 12) == list(range(12))
    assert one_video(name, video, 0) == []
    assert len(one_video(name, video, 1)) == 1
    assert len(one_video(name, video[:1], 2)) == 2
    assert one_video(name, torch.empty(0, 4, 8), 0) == []
    with pytest.raises(ValueError, match="keep"):
        one_video(name, video, 13)


@pytest.mark.parametrize("name", list(METHODS))
def test_nan_and_equal_tokens_still_give_the_exact_count(name: str) -> None:
    video = torch.zeros(3, 4, 8)
    assert len(one_video(name, video, 5)) == 5
    video[1, 2] = math.nan
    video[2, 1] = math.inf
    index = one_video(name, video, 5)
    assert len(set(index)) == 5


def test_surprise_keeps_the_first_frame_and_then_what_changed() -> None:
    video = torch.ones(3, 3, 2)
    video[1, 2] = torch.tensor([1.0, -1.0])  # changes, and changes back: rows 5 and 8
    assert one_video("surprise", video, 5) == [0, 1, 2, 5, 8]
    assert one_video("surprise", video, 2) == [0, 1]
    video[2, 0] = 5.0  # row 6 grows, its direction stays
    assert one_video("surprise", video, 5) == [0, 1, 2, 5, 8]
    assert one_video("surprise-l2", video, 4) == [0, 1, 2, 6]


def test_a_law_can_be_chosen_for_scores_only() -> None:
    video = torch.randn(4, 4, 8, generator=torch.Generator().manual_seed(1))
    spread = one_video("norm", video, 4, selection="systematic")
    assert len(spread) == 4
    for name, method in METHODS.items():
        if isinstance(method, IndexMethod):
            with pytest.raises(ValueError, match=name):
                one_video(name, video, 4, selection="systematic")
        else:
            assert isinstance(method, ScoreMethod)


def test_norm_keeps_the_longest() -> None:
    assert one_video("norm", torch.tensor([[[1.0], [-5.0]], [[3.0], [0.0]]]), 2) == [1, 2]


def test_evs_spreads_a_budget_below_the_first_frame() -> None:
    video = torch.randn(2, 8, 4, generator=torch.Generator().manual_seed(1))
    assert one_video("evs", video, 4) == [1, 3, 5, 7]  # each crosses (j + 1/2) 8 / 4
    assert one_video("evs", video, 8) == list(range(8))
    assert one_video("evs", video, 11) == one_video("surprise", video, 11)


def test_evs_capped_by_hand() -> None:
    video = torch.zeros(3, 4, 2)
    video[..., 0] = 1.0
    video[1, 2] = torch.tensor([0.0, 1.0])  # row 6 changes, and row 10 changes back
    video[2, 0] = torch.tensor([1.0, 0.1])  # row 8 changes a little
    assert one_video("evs-capped", video, 4) == [1, 3, 6, 10]  # half of 4 on the first frame, evenly
    assert one_video("evs-capped", video, 5) == [0, 1, 3, 6, 10]  # of an odd budget the larger half
    # what the first frame may not take goes to what changed most, then to what did not change, the lowest row first
    assert one_video("evs-capped", video, 8) == [0, 1, 2, 3, 4, 6, 8, 10]
    # half of the budget is more than the first frame
    assert one_video("evs-capped", video, 10) == [*range(9), 10]
    # a single frame has nothing else to spend on
    assert one_video("evs-capped", video[:1], 2) == [1, 3]


def kept_shares(pi: np.ndarray, rows: list[int]) -> float:
    """How far the count kept of any prefix is from its summed probabilities, at most."""
    kept = np.zeros(len(pi))
    kept[rows] = 1
    return float(np.abs(kept.cumsum() - pi.cumsum()).max())


def in_proportion(scores: np.ndarray, keep: int) -> np.ndarray:
    """s C / (1 + s C), C such that they sum to ``keep``."""
    low, high = -60.0, 60.0
    for _ in range(200):
        middle = (low + high) / 2
        odds = scores * math.exp(middle)
        low, high = (middle, high) if (odds / (1 + odds)).sum() < keep else (low, middle)
    odds = scores * math.exp(low)
    return odds / (1 + odds)


@pytest.mark.parametrize("keep", [1, 7, 40, 90])
@pytest.mark.parametrize("seed", range(3))
def test_evs_dithered_is_spread_in_proportion_to_surprise(seed: int, keep: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(6, 20, 5)) + 4 * rng.normal(size=(20, 5))
    unit = x / np.linalg.norm(x, axis=2, keepdims=True)
    surprise = 1 - (unit[1:] * unit[:-1]).sum(2)  # [5, 20]
    scores = np.concatenate([np.full(20, surprise.mean()), surprise.flatten()])
    rows = one_video("evs-dithered", torch.tensor(x).float(), keep)
    assert kept_shares(in_proportion(scores, keep), rows) < 1.001


@pytest.mark.parametrize("keep", [3, 20, 60])
def test_a_score_is_spread_in_proportion_to_itself(keep: int) -> None:
    norm = np.linspace(0.1, 8, 120)
    directions = np.random.default_rng(keep).normal(size=(120, 5))
    x = directions / np.linalg.norm(directions, axis=1, keepdims=True) * norm[:, None]
    rows = one_video("norm", torch.tensor(x).float().view(6, 20, 5), keep, selection="systematic")
    assert kept_shares(in_proportion(norm, keep), rows) < 1.001
    # with the score itself as a logit more of the long ones would be kept: e^s is not s
    assert kept_shares(in_proportion(np.exp(norm), keep), rows) > 1.2


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if isinstance(method, ScoreMethod)])
def test_scores_have_logarithms(name: str) -> None:
    video = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(2))
    video[2] = video[1]
    method = METHODS[name]
    assert isinstance(method, ScoreMethod)
    packed = *pack(video), keep_of(9)
    assert (method.scores(*packed) >= 0).all()
    assert torch.equal(method.select_by(*packed, "topk"), method.scores(*packed))
    assert torch.equal(method.select_by(*packed, "systematic"), method.scores(*packed).log())


def test_a_token_that_did_not_change_is_kept_last() -> None:
    video = torch.randn(1, 8, 4, generator=torch.Generator().manual_seed(3)).repeat(3, 1, 1)
    video[1, 5] += 1.0  # rows 13 and 21 change
    assert one_video("surprise", video, 10, selection="systematic") == [*range(8), 13, 21]


@pytest.mark.parametrize("keep", [0, 1, 10, 30, 99, 100])
def test_uniform_has_one_token_of_each_stretch(keep: int) -> None:
    index = one_video("uniform", torch.randn(5, 20, 4), keep)
    bounds = [number * 100 // max(keep, 1) for number in range(keep + 1)]
    assert all(first <= row < end for first, row, end in zip(bounds[:-1], index, bounds[1:], strict=True))


def test_uniform_reaches_the_whole_grid() -> None:
    """Where equal steps would be on one column of 20, or on every fourth."""
    for keep in (50, 60):
        index = one_video("uniform", torch.zeros(50, 20, 1), keep)
        assert len({row % 20 for row in index}) >= 18


def test_random_is_uniform_and_repeatable() -> None:
    tokens, cu, per_frame = pack(torch.zeros(2, 5, 1))
    draws = [RandomMethod(s).index(tokens, cu, per_frame, keep_of(4)) for s in range(2000)]
    share = torch.bincount(torch.cat(draws), minlength=10) / 2000
    assert share.sub(0.4).abs().max() < 5 * math.sqrt(0.4 * 0.6 / 2000)
    assert torch.equal(draws[7], RandomMethod(7).index(tokens, cu, per_frame, keep_of(4)))
    with pytest.warns(DeprecationWarning, match="seed is now given as"):
        assert torch.equal(draws[7], METHODS["random"].index(tokens, cu, per_frame, keep_of(4), seed=7))


def vidcom2_by_definition(video: np.ndarray, keep: int) -> list[int]:
    """The rule written out token by token. float64 [T, N, D] -> rows."""
    t, n, d = video.shape
    variances = video.reshape(t * n, d).var(0)
    channels = sorted(np.argsort(variances, kind="stable")[: max(1, d // 2)])
    x = video[:, :, channels]
    x = x / np.linalg.norm(x, axis=2, keepdims=True)
    centre = x.reshape(t * n, -1).mean(0)

    def closeness(a: np.ndarray, b: np.ndarray) -> float:
        return sum(math.exp(-float(((a - b) ** 2).sum()) / (2 * w)) for w in (1 / 8, 1 / 4, 1 / 2, 1, 2))

    uniqueness = [-np.mean([closeness(x[f, i], centre) for i in range(n)]) for f in range(t)]
    counts = frame_budgets([float(u) for u in uniqueness], n, keep)
    rows = []
    for f in range(t):
        typical = [closeness(x[f, i], centre) + closeness(x[f, i], x[f].mean(0)) for i in range(n)]
        rows += [f * n + int(i) for i in np.argsort(typical, kind="stable")[: counts[f]]]
    return sorted(rows)


@pytest.mark.parametrize("seed", range(6))
def test_vidcom2_by_definition(seed: int) -> None:
    rng = np.random.default_rng(seed)
    video = rng.normal(size=(4, 5, 9)) + rng.normal(size=9)
    for keep in (1, 3, 4, 7, 15, 19):
        assert one_video("vidcom2", torch.tensor(video), keep) == vidcom2_by_definition(video, keep)


@pytest.mark.parametrize(
    ("uniqueness", "keep", "counts"),
    [
        ([0.0, 0.0], 4, [2, 2]),
        ([0.0, 1.0], 4, [1, 3]),  # due 2 (1 + 0 - 1/2) = 1 and 2 (1 + 1 - 1/2) = 3
        ([0.0, 1.0], 7, [3, 4]),  # due 1.75 and 5.25; a frame has 4, the rest goes to the other
        ([0.0, 1.0], 2, [1, 1]),  # at least one each
        ([0.0, 1.0], 1, [0, 1]),  # where there is one for each
        ([0.0, 0.0, 0.0], 4, [2, 1, 1]),  # ties go to the earlier frame
        ([5.0], 3, [3]),
        ([0.0, 1.0], 0, [0, 0]),
        ([0.0, 1.0], 8, [4, 4]),
        ([math.nan, 1.0], 4, [1, 3]),
    ],
)
def test_frame_budgets_by_hand(uniqueness: list[float], keep: int, counts: list[int]) -> None:
    assert frame_budgets(uniqueness, 4, keep) == counts


@given(st.lists(st.floats(-9, 0), min_size=1, max_size=9), st.integers(1, 9), st.data())
def test_frame_budgets_sum_to_the_budget(uniqueness: list[float], n: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(0, len(uniqueness) * n))
    counts = frame_budgets(uniqueness, n, keep)
    assert sum(counts) == keep
    assert all((keep >= len(counts)) <= c <= n for c in counts)


def test_divprune_by_hand() -> None:
    degrees = torch.tensor([0.0, 10.0, 20.0, 90.0, 100.0, 200.0])
    video = torch.stack([degrees.deg2rad().cos(), degrees.deg2rad().sin()], dim=1).view(2, 3, 2)
    # The mean points to about 46 degrees: 200 is furthest. From there 10 and 20 are furthest (190 and 180 apart): 20.
    # Then 100 (80 from 20, 100 from 200) before 90 and 0. Then 0: 20 from 20; 10 and 90 are 10 from a kept one.
    assert one_video("divprune", video, 1) == [5]
    assert one_video("divprune", video, 2) == [2, 5]
    assert one_video("divprune", video, 3) == [2, 4, 5]
    assert one_video("divprune", video, 4) == [0, 2, 4, 5]


@pytest.mark.parametrize("seed", range(4))
def test_divprune_by_definition(seed: int) -> None:
    x = np.random.default_rng(seed).normal(size=(12, 5))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    distance = 1 - unit @ unit.T
    kept = [int((unit @ unit.mean(0)).argmin())]
    while len(kept) < 8:
        rest = [i for i in range(12) if i not in kept]
        kept.append(max(rest, key=lambda i: distance[i, kept].min()))
    assert one_video("divprune", torch.tensor(x, dtype=torch.float32).view(3, 4, 5), 8) == sorted(kept)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no method 'sorprise'; there are surprise, surprise-l2, norm, evs"):
        find_method("sorprise")
