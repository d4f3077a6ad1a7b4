"""divprune's kernels, emulated, against the CPU's: the same rows in the same order."""

from __future__ import annotations

import math

import pytest
import torch
from emulated_ops import Ops
from test_kernels import DTYPES, RULES, budgets, int32, offsets
from torch import Tensor

import score_ext

# The third fills a block's warps several times over; the last is long enough for a team (8,192 tokens).
LENGTHS = ([7], [0, 12, 0, 1, 5, 30, 0], [70, 1100], [8300])


def assert_equals_cpu(ops: Ops, tokens: Tensor, lengths: list[int], keep: Tensor) -> None:
    weights = torch.randn(len(tokens)).exp()
    weights[::7], weights[3::11] = -1.0, math.nan
    for ordered, weighting in ((False, None), (True, None), (True, weights)):
        arguments = tokens, offsets(lengths), keep, int(keep.sum()), ordered, weighting
        assert torch.equal(ops.divprune(*arguments), score_ext.divprune(*arguments))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("lengths", LENGTHS[:2], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [1, 16, 37])
def test_equals_cpu(ops: Ops, width: int, dtype: torch.dtype, lengths: list[int], rule: str) -> None:
    torch.manual_seed(width)
    assert_equals_cpu(ops, torch.randn(sum(lengths), width).to(dtype), lengths, budgets(lengths, rule))


# The longest only once: each step of its blocks takes seconds here.
@pytest.mark.parametrize(
    ("lengths", "kind"), [*((LENGTHS[2], kind) for kind in ("normal", "still", "special")), (LENGTHS[3], "special")]
)
def test_many_tokens_equal_cpu(ops: Ops, lengths: list[int], kind: str) -> None:
    torch.manual_seed(1)
    tokens = torch.randn(sum(lengths), 5)
    if kind == "still":
        tokens = tokens[:9][torch.arange(len(tokens)) % 9]
    elif kind == "special":  # zero tokens, NaN, squares that are no floats
        tokens[::5] = 0.0
        tokens[1::50, 2] = math.nan
        tokens[2::3] *= 1e-30
        tokens[4::7] *= 1e30
    keep = 3 if len(tokens) > 8192 else 24
    assert_equals_cpu(ops, tokens, lengths, int32(*[min(length, keep) for length in lengths]))


@pytest.mark.parametrize("keep", [[5, 5], [-3, 90], [2**31 - 1, 2**31 - 1]])
@pytest.mark.parametrize("cu_seqlens", [[0, 20, 30], [5, -7, 99], [30, 0, 30]])
def test_wrong_values_stay_within_the_tensors(ops: Ops, cu_seqlens: list[int], keep: list[int]) -> None:
    index = ops.divprune(torch.randn(30, 8), int32(*cu_seqlens), int32(*keep), 10)
    assert bool(((index >= 0) & (index < 30)).all())


def test_teams_of_several_videos_equal_cpu(ops: Ops) -> None:
    """One is shorter than a block's share, one is empty; the other two have blocks of their own number."""
    lengths, ops.resident_blocks = [8195, 0, 33, 3100], 12
    tokens, keep = torch.randn(sum(lengths), 5), int32(3, 0, 9, 4)
    weights = torch.randn(len(tokens)).exp()
    arguments = tokens, offsets(lengths), keep, int(keep.sum()), True, weights
    assert torch.equal(ops.divprune(*arguments), score_ext.divprune(*arguments))


@pytest.mark.parametrize("cu_seqlens", [[0, 9000, 20, 10_300], [-5, 7, 2_000_000_000, 60]], ids=str)
def test_wrong_offsets_stay_within_the_tensors_for_teams(ops: Ops, cu_seqlens: list[int]) -> None:
    """Nor do blocks wait for others that never come."""
    ops.resident_blocks = 7
    index = ops.divprune(torch.randn(10_300, 3), int32(*cu_seqlens), int32(3, 4, -4), 9)
    assert bool(((index >= 0) & (index < 10_300)).all())
