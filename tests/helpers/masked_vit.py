"""A vision transformer whose patches see only some of each other: what running it in part is compared with."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

_NAME = "score_test_masked"


@torch.no_grad()
def masked_tokens(model: Any, pixels: Tensor, seen: Tensor) -> Tensor:
    """What a DINOv2 makes of all patches if those that are not seen are masked out of each layer's attention.

    Args:
        pixels: [T, 3, height, width].
        seen: bool [T * N], by patch; class tokens are always seen.

    Returns:
        [T * N, D].
    """
    there = torch.nn.functional.pad(seen.view(len(pixels), -1), (1, 0), value=True)

    def attend(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: float, **others: Any) -> Any:
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value, there[:, None, None], scale=scaling)
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register(_NAME, attend)
    before = model.config._attn_implementation
    model.config._attn_implementation = _NAME
    try:
        hidden: Tensor = model(pixel_values=pixels).last_hidden_state
    finally:
        model.config._attn_implementation = before
    return hidden[:, 1:].flatten(0, 1)
