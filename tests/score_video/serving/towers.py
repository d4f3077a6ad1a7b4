"""vLLM's vision towers by themselves: tiny, with random weights, without an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

MERGE = 2
SIDE = {"Qwen2_5_VisionTransformer": 14, "Qwen3_VisionTransformer": 16}
"""Of a patch, in pixels."""

_SIZES = {
    "depth": 3,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_heads": 2,
    "in_channels": 3,
    "out_hidden_size": 48,
    "spatial_merge_size": MERGE,
    "temporal_patch_size": 2,
}
_OWN = {
    # windows of 2 x 2 tokens; the middle layer sees whole frames
    "Qwen2_5_VisionTransformer": {"window_size": 56, "fullatt_block_indexes": [1], "hidden_act": "silu"},
    "Qwen3_VisionTransformer": {
        "num_position_embeddings": 144,
        "deepstack_visual_indexes": [0, 2],
        "hidden_act": "gelu_pytorch_tanh",
    },
}


@contextmanager
def one_process(folder: Path) -> Iterator[None]:
    """What vLLM's layers ask for: a configuration, and a group of processes, of this one alone."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import (
        cleanup_dist_env_and_memory,
        init_distributed_environment,
        initialize_model_parallel,
    )

    with set_current_vllm_config(VllmConfig()):
        init_distributed_environment(1, 0, f"file://{folder / 'rendezvous'}", 0, "gloo")
        initialize_model_parallel(1, 1)
        try:
            yield
        finally:
            cleanup_dist_env_and_memory()


def tower_of(kind: str) -> Any:
    """A tower of a class of vLLM's, in float32."""
    from vllm.model_executor.models import qwen2_5_vl, qwen3_vl

    module = qwen2_5_vl if kind.startswith("Qwen2_5") else qwen3_vl
    tower = getattr(module, kind)(SimpleNamespace(**_SIZES, **_OWN[kind], patch_size=SIDE[kind])).eval()
    generator = torch.Generator().manual_seed(0)
    for name, weight in tower.named_parameters():
        weight.requires_grad_(False)
        scale = 1.5 * weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1
        weight.copy_(torch.randn(weight.shape, generator=generator) * scale)
        if "norm" in name or "ln_q" in name:
            weight += float(name.endswith("weight"))
    for layer in tower.modules():
        if hasattr(layer, "quant_method"):
            layer.quant_method.process_weights_after_loading(layer)
    return tower


def pixels_of(tower: Any, grid: tuple[int, int, int], seed: int = 1) -> Tensor:
    """float32 [patches, numbers of a patch] of a video; ``grid`` is of patches."""
    patches = grid[0] * grid[1] * grid[2]
    width = 3 * tower.patch_embed.temporal_patch_size * tower.patch_size**2
    return torch.randn(patches, width, generator=torch.Generator().manual_seed(seed))


class _Masked(nn.Module):
    """Attention by its definition, within segments and among the patches that are there."""

    def __init__(self, own: Any, there: Tensor) -> None:
        super().__init__()
        self.scale, self.there = own.scale, there

    def forward(self, query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, **_: Any) -> Tensor:
        """[1, s, heads, d] each, and what comes out."""
        segment = torch.searchsorted(cu_seqlens[1:], torch.arange(query.shape[1]).int(), right=True)
        seen = (segment[:, None] == segment) & (self.there | ~self.there[:, None])  # dropped ones: whatever
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key) * self.scale
        weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        return torch.einsum("bhqk,bkhd->bqhd", weights, value)


@contextmanager
def masked(tower: Any, grid: tuple[int, int, int], encoded: Tensor) -> Iterator[None]:
    """The stock tower with all patches masked out but those of some tokens, int64 [E]."""
    tokens = grid[0] * grid[1] * grid[2] // MERGE**2
    there = torch.zeros(tokens, dtype=torch.bool).index_fill_(0, encoded, True)
    if hasattr(tower, "window_size"):
        there = there[tower.get_window_index_thw(*grid)[0]]
    there = there.repeat_interleave(MERGE**2)
    own = [block.attn.attn for block in tower.blocks]
    for block in tower.blocks:
        block.attn.attn = _Masked(block.attn.attn, there)
    try:
        yield
    finally:
        for block, attention in zip(tower.blocks, own, strict=True):
            block.attn.attn = attention
