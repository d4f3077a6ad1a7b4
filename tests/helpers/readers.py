"""A reader of the miniature that knows nothing and takes no time, for tests of what is around it."""

from __future__ import annotations

from typing import Any

import torch

from score_video.miniature.reader import Reader, ReaderConfig


def tiny_reader(seed: int = 0, **sizes: Any) -> Reader:
    """Random weights, frozen."""
    torch.manual_seed(seed)
    config = ReaderConfig(**{"tower_width": 8, "token_width": 8, "width": 12, "layers": 2, "heads": 2, **sizes})
    return Reader(config).eval().requires_grad_(False)
