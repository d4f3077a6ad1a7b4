"""Names of 0.1, accepted until 0.3 with a DeprecationWarning."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from score_ext import ops
from score_ext.results import GumbelTopk, GumbelTopkWithLogProb


def _warn(old: str, new: str) -> None:
    """Names the line that called the function that called this one."""
    if not torch.compiler.is_compiling():
        warnings.warn(f"score_ext.{old} is deprecated, use score_ext.{new}", DeprecationWarning, stacklevel=3)


def draw(
    logits: Tensor, cu_seqlens: Tensor, keep: Tensor, total_keep: int, num_samples: int, seed: Tensor
) -> GumbelTopk:
    """:func:`score_ext.gumbel_topk`, whose ``total_keep`` comes last."""
    _warn("draw", "gumbel_topk")
    return ops.gumbel_topk(logits, cu_seqlens, keep, num_samples, seed, total_keep)


def sample(
    logits: Tensor, cu_seqlens: Tensor, keep: Tensor, total_keep: int, num_samples: int, seed: Tensor
) -> GumbelTopkWithLogProb:
    """:func:`score_ext.gumbel_topk_with_log_prob`, whose ``total_keep`` comes last."""
    _warn("sample", "gumbel_topk_with_log_prob")
    return ops.gumbel_topk_with_log_prob(logits, cu_seqlens, keep, num_samples, seed, total_keep)


def plackett_luce(logits: Tensor, cu_seqlens: Tensor, keep: Tensor, order: Tensor) -> Tensor:
    """:func:`score_ext.plackett_luce_log_prob`."""
    _warn("plackett_luce", "plackett_luce_log_prob")
    return ops.plackett_luce_log_prob(logits, cu_seqlens, keep, order)


def attribute_of_ops(name: str) -> Any:
    """What ``score_ext.ops`` had under a name that it has no more."""
    if name == "Law":
        warnings.warn(
            "score_ext.ops.Law is deprecated, use score_ext.ops.SelectionRule", DeprecationWarning, stacklevel=3
        )
        return ops.SelectionRule
    if name in ("draw", "sample", "plackett_luce"):
        return globals()[name]
    raise AttributeError(f"module 'score_ext.ops' has no attribute {name!r}")
