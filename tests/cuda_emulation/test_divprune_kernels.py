"""divprune's kernels, emulated, against the CPU's: the same rows in the same order."""

from __future__ import annotations

import math

import pytest
import torch
from emulated_ops import Ops
from test_kernels import DTYPES, RULES, budgets, int32, offsets
from torch import Tensor

import score_ext

# The third is long enough for teams (1,024 tokens, 128 for each video beside the first); without, a warp of the one
# block has many tokens. The last has more tokens than 32 to a warp.
LENGTHS = ([7], [0, 12, 0, 1, 5, 30, 0], [70, 1100], [8300])


def some_weights(tokens: Tensor) -> Tensor:
    weights = torch.randn(len(tokens)).exp()
    weights[::7], weights[3::11] = -1.0, math.nan
    return weights


def assert_equals_cpu(
    ops: Ops, tokens: Tensor, lengths: list[int], keep: Tensor, ordered: bool, weights: Tensor | None
) -> None:
    arguments = tokens, offsets(lengths), keep, int(keep.sum()), ordered, weights
    assert torch.equal(ops.divprune(*arguments), score_ext.divprune(*arguments))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("lengths", LENGTHS[:2], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [1, 16, 37])
def test_equals_cpu(ops: Ops, width: int, dtype: torch.dtype, lengths: list[int], rule: str) -> None:
    torch.manual_seed(width)
    tokens, keep = torch.randn(sum(lengths), width).to(dtype), budgets(lengths, rule)
    for ordered, weights in ((False, None), (True, None), (True, some_weights(tokens))):
        assert_equals_cpu(ops, tokens, lengths, keep, ordered, weights)


# Each step of many blocks takes a second here.
@pytest.mark.parametrize(
    ("lengths", "kind", "blocks", "keep"),
    [
        (LENGTHS[2], "normal", 4, 9),
        (LENGTHS[2], "still", 4, 11),  # of nine different tokens
        (LENGTHS[2], "special", 4, 7),
        (LENGTHS[2], "normal", 1, 10),
        ([1100], "apart", 1, 36),
        (LENGTHS[3], "special", 3, 3),
    ],
    ids=str,
)
def test_many_tokens_equal_cpu(ops: Ops, lengths: list[int], kind: str, blocks: int, keep: int) -> None:
    torch.manual_seed(1)
    ops.resident_blocks = blocks
    tokens = torch.randn(sum(lengths), 5)
    if kind == "still":
        tokens = tokens[:9][torch.arange(len(tokens)) % 9]
    elif kind == "apart":  # few are near to the first; when they lead they are behind by more than two batches
        tokens = torch.eye(48)[torch.arange(len(tokens)) % 30]
        tokens[7::100] = torch.eye(48)[30] + 0.9 * torch.eye(48)[31:42]
    elif kind == "special":  # zero tokens, NaN, squares that are no floats
        tokens[::5] = 0.0
        tokens[1::50, 2] = math.nan
        tokens[2::3] *= 1e-30
        tokens[4::7] *= 1e30
    weights = some_weights(tokens) if kind == "special" else None
    assert_equals_cpu(ops, tokens, lengths, int32(*[keep] * len(lengths)), kind != "normal", weights)


@pytest.mark.parametrize("keep", [[5, 5], [-3, 90], [2**31 - 1, 2**31 - 1]])
@pytest.mark.parametrize("cu_seqlens", [[0, 20, 30], [5, -7, 99], [30, 0, 30]])
def test_wrong_values_stay_within_the_tensors(ops: Ops, cu_seqlens: list[int], keep: list[int]) -> None:
    index = ops.divprune(torch.randn(30, 8), int32(*cu_seqlens), int32(*keep), 10)
    assert bool(((index >= 0) & (index < 30)).all())


def test_teams_of_several_videos_equal_cpu(ops: Ops) -> None:
    """One is shorter than a block's share, one is empty; the other two have more blocks."""
    lengths, ops.resident_blocks = [1500, 0, 33, 700], 9
    tokens = torch.randn(sum(lengths), 5)
    assert_equals_cpu(ops, tokens, lengths, int32(6, 0, 3, 4), True, torch.randn(len(tokens)).exp())


@pytest.mark.parametrize("cu_seqlens", [[0, 1500, 20, 1600], [-5, 7, 2_000_000_000, 60]], ids=str)
def test_wrong_offsets_stay_within_the_tensors_for_teams(ops: Ops, cu_seqlens: list[int]) -> None:
    """Nor do blocks wait for others that never come."""
    ops.resident_blocks = 7
    index = ops.divprune(torch.randn(1600, 3), int32(*cu_seqlens), int32(3, 4, -4), 9)
    assert bool(((index >= 0) & (index < 1600)).all())
