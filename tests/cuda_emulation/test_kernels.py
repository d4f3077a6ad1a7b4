"""The CUDA kernels, emulated, against the CPU's: to the bit where tokens are picked, to rounding elsewhere."""

from __future__ import annotations

import math

import pytest
import torch
from emulated_ops import Ops
from torch import Tensor

import score_ext

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LAWS = ("topk", "systematic")
# Lengths of the videos of a batch; 0 is an empty video. The last fills every thread's turn of select's tiles, and is not
# at the start of the batch: otherwise some missing barriers would not show.
RAGGED = ([7], [0, 12, 0, 1, 5, 30, 0], [600, 3, 1100], [5, 8192])


def int32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


def offsets(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).to(torch.int32)


RULES = ("none", "one", "third", "all", "mixed")


def budgets(lengths: list[int], rule: str) -> Tensor:
    """How many each video keeps; "mixed" gives neighbours different rules."""
    keep = {"none": lambda n: 0, "one": lambda n: min(n, 1), "third": lambda n: n // 3, "all": lambda n: n}
    rules = [RULES[number % 4] if rule == "mixed" else rule for number in range(len(lengths))]
    return int32(*[keep[rule](length) for rule, length in zip(rules, lengths, strict=True)])


def seeds(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int64)


def special_scores(length: int) -> list[Tensor]:
    """Scores that rank and sum unlike random ones."""
    torch.manual_seed(length)
    random = torch.randn(length)
    mixed = random.clone()
    mixed[::5], mixed[1::7], mixed[2::11] = math.nan, math.inf, -math.inf
    zeros = torch.where(torch.arange(length) % 2 == 0, 0.0, -0.0)
    return [
        random,
        random * 30 - 20,
        mixed,
        zeros,
        torch.full((length,), math.nan),
        (random * 2).round(),
        1 + random * 1e-6,
        random * 1e29,
    ]


# ---- select ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_select_equals_cpu(ops: Ops, lengths: list[int], law: str) -> None:
    cu = offsets(lengths)
    for number, scores in enumerate(special_scores(sum(lengths))):
        keep = budgets(lengths, ("third", "one", "mixed", "all", "third")[number % 5])
        total, offset = int(keep.sum()), (0.5, 0.0, 0.999)[number % 3]
        expected = score_ext.select(scores, cu, keep, total, law=law, offset=offset)
        assert torch.equal(ops.select(scores, cu, keep, total, law=law, offset=offset), expected), number


@pytest.mark.parametrize("law", LAWS)
def test_select_from_a_long_video(ops: Ops, law: str) -> None:
    # Longer than two subsamples of systematic's first solve, and than any tile.
    torch.manual_seed(0)
    logits = torch.randn(30_011) * 3 - 2
    logits[100:200] = logits[0]
    cu = int32(0, len(logits))
    for count in (1, 3001):
        keep = int32(count)
        expected = score_ext.select(logits, cu, keep, count, law=law)
        assert torch.equal(ops.select(logits, cu, keep, count, law=law), expected)


# ---- draw and sample_bernoulli --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_draw_equals_cpu(ops: Ops, lengths: list[int]) -> None:
    cu = offsets(lengths)
    many_seeds = torch.arange(len(lengths)) * 0x1234567890AB - 5
    for number, logits in enumerate(special_scores(sum(lengths))[:5]):
        keep = budgets(lengths, ("third", "mixed", "all", "one", "third")[number])
        seed = (seeds(3), many_seeds, seeds(-1))[number % 3]
        total, samples = int(keep.sum()), 1 + number % 2
        expected = score_ext.draw(logits, cu, keep, total, samples, seed)
        drawn = ops.draw(logits, cu, keep, total, samples, seed)
        assert torch.equal(drawn[0], expected[0])
        assert torch.equal(drawn[1], expected[1])


@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_sample_bernoulli_equals_cpu(ops: Ops, lengths: list[int]) -> None:
    cu = offsets(lengths)
    for number, logits in enumerate(special_scores(sum(lengths))):
        seed = (seeds(7), torch.arange(len(lengths)))[number % 2]
        mask, log_prob, count = ops.sample_bernoulli(logits, cu, 2, seed)
        expected = score_ext.sample_bernoulli(logits, cu, 2, seed)
        assert torch.equal(mask, expected[0])
        torch.testing.assert_close(log_prob, expected[1], equal_nan=True)
        assert torch.equal(count, expected[2])


# ---- plackett_luce --------------------------------------------------------------------------------------------------


def order_of(logits: Tensor, cu: Tensor, keep: Tensor, samples: int) -> Tensor:
    return score_ext.draw(logits, cu, keep, int(keep.sum()), samples, seeds(11))[1]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_plackett_luce_equals_cpu(ops: Ops, lengths: list[int], rule: str) -> None:
    cu, keep = offsets(lengths), budgets(lengths, rule)
    torch.manual_seed(1)
    random = torch.randn(sum(lengths))
    # The last: sums of exponentials in float or double, relative to the largest, would lose the small ones.
    for logits in (random, random * 20, random * 1000, torch.zeros_like(random)):
        order = order_of(logits, cu, keep, 2)
        leaf = logits.clone().requires_grad_()
        expected = score_ext.plackett_luce(leaf, cu, keep, order)
        torch.testing.assert_close(ops.plackett_luce(logits, cu, keep, order), expected.detach())
        grad = torch.randn(expected.shape)
        expected.backward(grad)
        computed = ops.plackett_luce_backward(grad, logits, cu, keep, order)
        torch.testing.assert_close(computed, leaf.grad, rtol=1e-4, atol=2e-5)


def test_plackett_luce_of_invalid_logits_is_nan(ops: Ops) -> None:
    cu, keep = int32(0, 4, 8, 12, 16), int32(2, 2, 0, 2)
    logits = torch.zeros(16)
    logits[1], logits[6], logits[9], logits[13] = math.nan, math.inf, math.nan, -math.inf
    order = seeds(0, 1, 4, 5, 12, 14).view(1, -1)
    log_prob = ops.plackett_luce(logits, cu, keep, order)
    assert log_prob.isnan().tolist() == [[True, True, False, False]]
    torch.testing.assert_close(log_prob[0, 2:], torch.tensor([0.0, -math.log(3 * 2)]))


# ---- surprise and policy_state --------------------------------------------------------------------------------------


def video_tokens(
    frames: list[int], in_frame: list[int], width: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens of which a part does not change, some are zero, and one is NaN; cu_seqlens; tokens_per_frame."""
    torch.manual_seed(width)
    lengths = [t * n for t, n in zip(frames, in_frame, strict=True)]
    tokens = torch.randn(sum(lengths), width)
    start = 0
    for length, n in zip(lengths, in_frame, strict=True):
        for row in range(start + n, start + length):
            if row % 3 == 0:
                tokens[row] = tokens[row - n]
        start += length
    tokens[4::9] = 0
    tokens[11:12] = math.nan
    return tokens.to(dtype), offsets(lengths), int32(*in_frame)


SHAPES = [([3], [4]), ([1], [9]), ([0, 5, 0, 1, 9], [3, 7, 5, 2, 1]), ([40], [3])]
# Of rows: single vectors, odd sizes, every number of vectors per thread, more than the walk takes.
WIDTHS = [1, 3, 8, 24, 257, 776, 1000, 2056, 3584, 12_296]


@pytest.mark.parametrize("metric", ["cosine", "l2"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", WIDTHS)
def test_surprise_equals_cpu(ops_on_devices: Ops, width: int, dtype: torch.dtype, metric: str) -> None:
    for frames, in_frame in SHAPES if width < 1000 else SHAPES[2:3]:
        tokens, cu, n = video_tokens(frames, in_frame, width, dtype)
        expected = score_ext.surprise(tokens, cu, n, metric=metric, first=3.5)
        for misalignment in (0, tokens.element_size()) if width == 24 else (0,):
            found = ops_on_devices.surprise(tokens, cu, n, metric=metric, first=3.5, misalignment=misalignment)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
            # What did not move is exactly 0, what was or is zero exactly 1, whatever the rounding elsewhere.
            exact = (expected == 0) | (expected == 1) & (metric == "cosine") | expected.isnan()
            assert torch.equal(found[exact].nan_to_num(9), expected[exact].nan_to_num(9))


def test_surprise_of_a_cut_off_frame(ops: Ops) -> None:
    tokens = torch.randn(11, 16)  # 2 frames of 4, and 3 tokens of another; then a video shorter than its frame
    cu, n = int32(0, 8 + 3, 11), int32(4, 4)
    found = ops.surprise(tokens, cu, n)
    similarity = torch.nn.functional.cosine_similarity(tokens[4:], tokens[:-4])
    torch.testing.assert_close(found, torch.cat([torch.full((4,), math.inf), 1 - similarity]))
    assert bool((ops.surprise(tokens, int32(0, 3, 11), int32(4, 100)) == math.inf).all())


@pytest.mark.parametrize("out_dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [1, 40, 257])
def test_policy_state_equals_cpu(ops: Ops, width: int, dtype: torch.dtype, out_dtype: torch.dtype) -> None:
    tokens, cu, n = video_tokens([3, 0, 2], [2, 2, 5], width, dtype)
    position = torch.randn(len(tokens), 3)
    tolerance = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 2e-2}[out_dtype]
    for use_token, use_residual, given in ((1, 1, position), (0, 1, None), (1, 0, position[:, :0]), (0, 0, position)):
        arguments = (tokens, cu, n, given, 2, len(tokens) - 1, out_dtype, bool(use_token), bool(use_residual))
        expected = score_ext.policy_state(*arguments)
        found = ops.policy_state(*arguments, misalignment=tokens.element_size() if width == 40 else 0)
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


# ---- gather and kept_offsets ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*DTYPES, torch.uint8, torch.int64], ids=str)
@pytest.mark.parametrize("columns", [(), (1,), (3,), (8,), (2, 4), (17,), (64,), (5000,)], ids=str)
def test_gather_equals_indexing(ops: Ops, columns: tuple[int, ...], dtype: torch.dtype) -> None:
    tokens = torch.randint(0, 100, (20, *columns)).to(dtype)
    index = torch.randint(0, 20, (33,))
    for misalignment in (0, tokens.element_size()):
        assert torch.equal(ops.gather(tokens, index, misalignment=misalignment), tokens[index])
    assert ops.gather(tokens, index[:0]).shape == (0, *columns)


def test_kept_offsets_of_many_videos(ops: Ops) -> None:
    lengths = [number % 7 for number in range(600)]
    cu, keep = offsets(lengths), budgets(lengths, "third")
    assert torch.equal(ops.kept_offsets(cu, keep), torch.cat([int32(0), keep.cumsum(0).to(torch.int32)]))


# ---- values that the host could not check ---------------------------------------------------------------------------

GARBAGE_OFFSETS = [
    int32(0, 50, 20, 100),
    int32(-5, 7, 2_000_000_000, 60),
    int32(30, 31, 40, 41),
    int32(0, 0, 0, 0),
    int32(2**31 - 1, -(2**31), 2**31 - 1, -(2**31)),
]


@pytest.mark.parametrize("cu", GARBAGE_OFFSETS, ids=lambda cu: str(cu.tolist()))
@pytest.mark.parametrize("keep", [int32(20, 30, 50), int32(-4, 2**31 - 1, 9)], ids=lambda keep: str(keep.tolist()))
def test_wrong_offsets_and_budgets_stay_inside(ops: Ops, cu: Tensor, keep: Tensor) -> None:
    """AddressSanitizer watches; here it only counts that every index is a row."""
    length, total = 100, 60
    scores = torch.randn(length)
    for law in LAWS:
        index = ops.select(scores, cu, keep, total, law=law)
        assert bool(((index >= 0) & (index < length)).all())
    index, order = ops.draw(scores, cu, keep, total, 2, seeds(1))
    assert bool(((index >= 0) & (index < length) & (order >= 0) & (order < length)).all())
    ops.plackett_luce(scores, cu, keep, order)
    ops.plackett_luce_backward(torch.randn(2, 3), scores, cu, keep, order)
    ops.plackett_luce_backward(torch.randn(2, 3), scores, cu, keep, order * 10**9 - 10**9)
    ops.kept_offsets(cu, keep)
    tokens = torch.randn(length, 8)
    for in_frame in (int32(4, 4, 4), int32(0, -7, 2**31 - 1)):
        ops.surprise(tokens, cu, in_frame)
        ops.surprise(tokens[:, :3], cu, in_frame, metric="l2")
        ops.policy_state(tokens, cu, in_frame, None, 0, length, torch.float32)


@pytest.mark.parametrize("cu", GARBAGE_OFFSETS, ids=lambda cu: str(cu.tolist()))
def test_wrong_offsets_stay_inside_for_bernoulli(ops: Ops, cu: Tensor) -> None:
    logits = torch.randn(100)
    error = ops.emulator.call(
        "sample_bernoulli",
        cu_seqlens=cu,
        num_videos=3,
        num_tokens=100,
        logits=logits,
        num_samples=2,
        seed=seeds(1),
        num_seeds=1,
        mask=torch.zeros(2, 100, dtype=torch.uint8),
        log_prob=torch.zeros(2, 3),
        count=torch.zeros(2, 3, dtype=torch.int32),
    )
    assert error == 0


def test_gather_of_rows_that_do_not_exist_is_zero(ops: Ops) -> None:
    tokens = torch.randn(10, 6)
    index = seeds(-1, 9, 10, 2**62, -(2**63), 0)
    expected = torch.zeros(6, 6)
    expected[1], expected[5] = tokens[9], tokens[0]
    assert torch.equal(ops.gather(tokens, index), expected)


def test_budgets_that_fall_short_leave_rows(ops: Ops) -> None:
    scores, cu, keep = torch.randn(10), int32(0, 6, 10), int32(2, 1)
    for law in LAWS:
        assert ops.select(scores, cu, keep, 8, law=law)[3:].tolist() == [0] * 5
    index, order = ops.draw(scores, cu, keep, 8, 2, seeds(0))
    assert index[:, 3:].tolist() == order[:, 3:].tolist() == [[0] * 5] * 2
    # Nothing to choose from, and nothing that could be a row: 0 all the same.
    assert ops.select(scores[:0], int32(0, 0, 0), keep, 3).tolist() == [0] * 3


def test_no_tokens(ops: Ops) -> None:
    cu, none = int32(0, 0, 0), int32(0, 0)
    assert ops.surprise(torch.randn(0, 8), cu, int32(4, 4)).shape == (0,)
    assert ops.policy_state(torch.randn(0, 8), cu, int32(4, 4), None, 0, 0, torch.float32).shape == (0, 16)
    assert ops.select(torch.randn(0), cu, none, 0).shape == (0,)
    _, order = ops.draw(torch.randn(0), cu, none, 0, 2, seeds(1))
    assert ops.plackett_luce(torch.randn(0), cu, none, order).tolist() == [[0, 0], [0, 0]]
    assert ops.plackett_luce_backward(torch.ones(2, 2), torch.randn(0), cu, none, order).shape == (0,)
    mask, log_prob, count = ops.sample_bernoulli(torch.randn(0), cu, 2, seeds(1))
    assert mask.shape == (2, 0) and not log_prob.any() and not count.any()
    assert ops.kept_offsets(cu, none).tolist() == [0, 0, 0]
