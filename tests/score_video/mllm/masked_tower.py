"""What a partial run is measured against: the stock tower on whole videos, with the dropped patches masked out.

Masks are by hand, in attention; where a token's patches are is written down here again, and not asked of the package.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

MERGE = 2
PAIRS = ("ernie4_5_vl_moe",)
"""Two frames of the grid are one of tokens."""

_NAME = "score_video_test_masked"


class _Keys:
    """Which patches can be attended to, and where the next call of the sequence begins."""

    there: Tensor
    at: int
    calls: int


def _attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, scaling: float, **others: Any
) -> tuple[Tensor, None]:
    """Attention of a stretch of the sequence, [1, heads, n, d] each; stretches come in order, layer after layer."""
    length = query.shape[2]
    there = _Keys.there[_Keys.at : _Keys.at + length]
    _Keys.at = (_Keys.at + length) % len(_Keys.there)
    _Keys.calls += 1
    if not there.any():  # dropped patches among themselves: whatever
        there = torch.ones_like(there)
    key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
    out = torch.nn.functional.scaled_dot_product_attention(query, key, value, there[None, None, None], scale=scaling)
    return out.transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _attend)


def groups_of_tokens(model_type: str, grids: Tensor) -> Tensor:
    """int64 [L, frames of a token]."""
    rows, first = [], 0
    for t, h, w in grids.tolist():
        size = h * w // MERGE**2
        if model_type in PAIRS:
            rows += [
                (first + 2 * f * size + n, first + (2 * f + 1) * size + n) for f in range(t // 2) for n in range(size)
            ]
        else:
            rows += [(first + n,) for n in range(t * size)]
        first += t * size
    return torch.tensor(rows)


@contextmanager
def masked(model: Any, tower: Any, grids: Tensor, seen: Tensor) -> Iterator[None]:
    """The stock tower with all patches masked out but those of the tokens ``seen``, int64 [E]."""
    from transformers.vision_utils import get_vision_window_index

    groups = int(grids.prod(1).sum()) // MERGE**2
    there = torch.zeros(groups, dtype=torch.bool)
    there[groups_of_tokens(model.config.model_type, grids)[seen].flatten()] = True
    if hasattr(tower, "window_size"):
        there = there[get_vision_window_index(grids, MERGE, tower.window_size, tower.patch_size)[0]]
    _Keys.there, _Keys.at, _Keys.calls = there.repeat_interleave(MERGE**2), 0, 0
    before = tower.config._attn_implementation
    tower.config._attn_implementation = _NAME
    try:
        yield
    finally:
        tower.config._attn_implementation = before
    assert _Keys.calls > 0 and _Keys.at == 0, "the mask did not go through the tower's attention"
