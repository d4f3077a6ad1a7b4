"""Shapes of every op's results, for torch.compile, torch.export and fake tensors.

What a fake can see, it checks as the native op does: a wrong shape shows when the graph is traced.
"""

from __future__ import annotations

import torch
from torch import Tensor

from score_ext import _library  # noqa: F401  (loads torch.ops.score)


@torch.library.register_fake("score::surprise")
def _(
    tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, metric: str = "cosine", first: float | None = None
) -> Tensor:
    return tokens.new_empty((tokens.shape[0],), dtype=torch.float32)


@torch.library.register_fake("score::policy_state")
def _(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    position: Tensor | None,
    begin: int,
    end: int,
    dtype: torch.dtype,
    use_token: bool = True,
    use_residual: bool = True,
    epsilon: float = 1e-5,
) -> Tensor:
    columns = tokens.shape[1] * (use_token + use_residual) + (0 if position is None else position.shape[1])
    return tokens.new_empty((end - begin, columns), dtype=dtype)


@torch.library.register_fake("score::policy_logits")
def _(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    position: Tensor | None,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor | None,
    b2: Tensor | None,
    w_out: Tensor,
    b_out: Tensor,
    use_token: bool = True,
    use_residual: bool = True,
    epsilon: float = 1e-5,
) -> Tensor:
    return tokens.new_empty((tokens.shape[0],), dtype=torch.float32)


@torch.library.register_fake("score::select")
def _(
    scores: Tensor, cu_seqlens: Tensor, keep: Tensor, total_keep: int, law: str = "topk", offset: float = 0.5
) -> Tensor:
    return scores.new_empty((total_keep,), dtype=torch.int64)


@torch.library.register_fake("score::draw")
def _(
    logits: Tensor, cu_seqlens: Tensor, keep: Tensor, total_keep: int, num_samples: int, seed: Tensor
) -> tuple[Tensor, Tensor]:
    shape = (num_samples, total_keep)
    return logits.new_empty(shape, dtype=torch.int64), logits.new_empty(shape, dtype=torch.int64)


@torch.library.register_fake("score::plackett_luce")
def _(logits: Tensor, cu_seqlens: Tensor, keep: Tensor, order: Tensor) -> Tensor:
    return logits.new_empty((order.shape[0], keep.shape[0]))


@torch.library.register_fake("score::plackett_luce_backward")
def _(grad: Tensor, logits: Tensor, cu_seqlens: Tensor, keep: Tensor, order: Tensor) -> Tensor:
    return torch.empty_like(logits)


@torch.library.register_fake("score::sample")
def _(
    logits: Tensor, cu_seqlens: Tensor, keep: Tensor, total_keep: int, num_samples: int, seed: Tensor
) -> tuple[Tensor, Tensor]:
    index = logits.new_empty((num_samples, total_keep), dtype=torch.int64)
    return index, logits.new_empty((num_samples, keep.shape[0]))


@torch.library.register_fake("score::sample_bernoulli")
def _(logits: Tensor, cu_seqlens: Tensor, num_samples: int, seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    videos = cu_seqlens.shape[0] - 1
    mask = logits.new_empty((num_samples, logits.shape[0]), dtype=torch.bool)
    return mask, logits.new_empty((num_samples, videos)), logits.new_empty((num_samples, videos), dtype=torch.int32)


@torch.library.register_fake("score::gather")
def _(tokens: Tensor, index: Tensor) -> Tensor:
    return tokens.new_empty((index.shape[0], *tokens.shape[1:]))


@torch.library.register_fake("score::kept_offsets")
def _(cu_seqlens: Tensor, keep: Tensor) -> Tensor:
    return torch.empty_like(cu_seqlens)


@torch.library.register_fake("score::compress")
def _(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    keep: Tensor,
    total_keep: int,
    scores: Tensor | None = None,
    law: str = "topk",
    offset: float = 0.5,
) -> tuple[Tensor, Tensor, Tensor]:
    kept = tokens.new_empty((total_keep, tokens.shape[1]))
    return kept, tokens.new_empty((total_keep,), dtype=torch.int64), torch.empty_like(cu_seqlens)
