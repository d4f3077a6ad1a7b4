"""The plugin's models without weights or an engine: all of them that chooses tokens and counts positions."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from score_video.compressor import Compressor

WIDTH, MERGE, RATE = 6, 2, 0.75
TEXT, IMAGE, VIDEO, START, END = 10, 1, 2, 3, 4  # token ids


class Tokenizer:
    """A token for each character, from 100 on."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        del add_special_tokens
        return [100 + ord(character) % 50 for character in text]


class Inputs(dict[str, Any]):
    """vLLM's are read by name and as attributes."""

    timestamps: list[list[float]]


def bare_model(architecture: str, compressor: Compressor) -> Any:
    """A model of the plugin.

    Args:
        architecture: one of its own.
        compressor: what chooses.
    """
    from score_video.serving import vllm_models
    from score_video.serving.vllm_base import COUNTS

    kind = getattr(vllm_models, architecture)
    model = kind.__new__(kind)
    nn.Module.__init__(model)
    vision = SimpleNamespace(spatial_merge_size=MERGE, tokens_per_second=2)
    model.config = SimpleNamespace(
        image_token_id=IMAGE,
        video_token_id=VIDEO,
        vision_start_token_id=START,
        vision_end_token_id=END,
        vision_config=vision,
    )
    model.visual = SimpleNamespace(spatial_merge_size=MERGE)
    model.visual_dim = WIDTH
    model._tokenizer = Tokenizer()
    model._prunes = model._positions_are_kept = True
    model._counts_videos, model._gate = False, compressor.gate
    model._count = partial(COUNTS["evs"], q=RATE)
    model._after_tower = replace(compressor, before_tower=None, halo=0)
    embed = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(9))
    model.get_language_model = lambda: SimpleNamespace(embed_input_ids=lambda ids: embed[ids])
    return model


def merged(grid: tuple[int, int, int]) -> int:
    """Tokens of a video or image."""
    return grid[0] * grid[1] * grid[2] // MERGE**2


def tokens_of(grid: tuple[int, int, int], seed: int, levels: int = 0) -> Tensor:
    """[T * N, WIDTH * (1 + levels)]."""
    return torch.randn(merged(grid), WIDTH * (1 + levels), generator=torch.Generator().manual_seed(seed))
