"""Shapes of every op's results, for torch.compile, torch.export and fake tensors.

What a fake can see, it checks as the native op does: a wrong shape shows when the graph is traced.
"""

from __future__ import annotations

import torch
from torch import Tensor

from score_ext import _library  # noqa: F401  (loads torch.ops.score)

_TOKEN_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
_MEASURES, _TEMPORAL_COLUMNS, _APPEARANCE_COLUMNS, _POSITION_COLUMNS = 13, 25, 18, 21  # csrc/include/score/relative.h


def _check(op: str, name: str, tensor: Tensor, dim: int, *dtypes: torch.dtype, beside: Tensor) -> None:
    """Number of dimensions, dtype and device: what has no symbols in it, so that checking it guards nothing."""
    if tensor.dim() != dim or (dtypes and tensor.dtype not in dtypes):
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes) or "of any dtype"
        got = f"{str(tensor.dtype).removeprefix('torch.')} with {tensor.dim()}"
        raise ValueError(f"score.{op}: {name} must be {wanted} with {dim} dimensions, got {got}")
    if tensor.device != beside.device:
        raise ValueError(f"score.{op}: {name} must be on the device of the other tensors, got {tensor.device}")


def _check_videos(op: str, beside: Tensor, cu_seqlens: Tensor, **per_video: Tensor) -> None:
    _check(op, "cu_seqlens", cu_seqlens, 1, torch.int32, beside=beside)
    for name, tensor in per_video.items():
        _check(op, name, tensor, 1, torch.int32, beside=beside)
        torch._check_value(
            tensor.shape[0] == cu_seqlens.shape[0] - 1,
            lambda name=name: f"score.{op}: {name} must have one value for each video",
        )


def _check_tokens(op: str, tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, **per_video: Tensor) -> None:
    _check(op, "tokens", tokens, 2, *_TOKEN_DTYPES, beside=tokens)
    _check_videos(op, tokens, cu_seqlens, tokens_per_frame=tokens_per_frame, **per_video)


def _check_logits(op: str, logits: Tensor, cu_seqlens: Tensor, name: str = "logits", **per_video: Tensor) -> None:
    _check(op, name, logits, 1, torch.float32, beside=logits)
    _check_videos(op, logits, cu_seqlens, **per_video)


def _check_features(op: str, tokens: Tensor, features: Tensor | None) -> None:
    if features is not None:
        _check(op, "features", features, 2, torch.float32, beside=tokens)


def _check_layers(op: str, tokens: Tensor, *layers: tuple[Tensor | None, Tensor | None]) -> None:
    first = layers[0][0]
    for name, (weight, bias) in zip(("w1", "w2", "w_out"), layers, strict=True):
        if first is not None and weight is not None and bias is not None:
            _check(op, name, weight, 2, first.dtype, beside=tokens)
            _check(op, name, bias, 1, first.dtype, beside=tokens)


@torch.library.register_fake("score::surprise")
def _(
    tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, metric: str = "cosine", first: float | None = None
) -> Tensor:
    _check_tokens("surprise", tokens, cu_seqlens, tokens_per_frame)
    return tokens.new_empty((tokens.shape[0],), dtype=torch.float32)


@torch.library.register_fake("score::policy_state")
def _(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    features: Tensor | None,
    begin: int,
    end: int,
    dtype: torch.dtype,
    use_token: bool = True,
    use_residual: bool = True,
    epsilon: float = 1e-5,
) -> Tensor:
    _check_tokens("policy_state", tokens, cu_seqlens, tokens_per_frame)
    _check_features("policy_state", tokens, features)
    columns = tokens.shape[1] * (use_token + use_residual) + (0 if features is None else features.shape[1])
    return tokens.new_empty((end - begin, columns), dtype=dtype)


@torch.library.register_fake("score::policy_logits")
def _(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor | None,
    b2: Tensor | None,
    w_out: Tensor,
    b_out: Tensor,
    features: Tensor | None = None,
    use_token: bool = True,
    use_residual: bool = True,
    epsilon: float = 1e-5,
) -> Tensor:
    op = "policy_logits"
    _check_tokens(op, tokens, cu_seqlens, tokens_per_frame)
    _check_features(op, tokens, features)
    _check_layers(op, tokens, (w1, b1), (w2, b2), (w_out, b_out))
    return tokens.new_empty((tokens.shape[0],), dtype=torch.float32)


@torch.library.register_fake("score::relative_state")
def _(tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, columns: Tensor, num_frames: int) -> Tensor:
    _check_tokens("relative_state", tokens, cu_seqlens, tokens_per_frame, columns=columns)
    return tokens.new_empty((tokens.shape[0], _TEMPORAL_COLUMNS + _APPEARANCE_COLUMNS), dtype=torch.float32)


@torch.library.register_fake("score::relative_logits")
def _(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    columns: Tensor,
    num_frames: int,
    w1: Tensor,
    b1: Tensor,
    w2: Tensor | None,
    b2: Tensor | None,
    w_out: Tensor,
    b_out: Tensor,
    features: Tensor | None = None,
    use_token: bool = True,
    use_residual: bool = True,
    use_position: bool = True,
) -> Tensor:
    op = "relative_logits"
    _check_tokens(op, tokens, cu_seqlens, tokens_per_frame, columns=columns)
    _check_features(op, tokens, features)
    _check_layers(op, tokens, (w1, b1), (w2, b2), (w_out, b_out))
    return tokens.new_empty((tokens.shape[0],), dtype=torch.float32)


@torch.library.register_fake("score::relative_measures")
def _(
    tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, columns: Tensor, num_frames: int
) -> tuple[Tensor, Tensor]:
    _check_tokens("relative_measures", tokens, cu_seqlens, tokens_per_frame, columns=columns)
    measures = tokens.new_empty((tokens.shape[0], _MEASURES), dtype=torch.float32)
    return measures, tokens.new_empty((num_frames + columns.shape[0], _MEASURES, 2), dtype=torch.float64)


@torch.library.register_fake("score::relative_rows")
def _(
    measures: Tensor,
    moments: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    columns: Tensor,
    features: Tensor | None,
    begin: int,
    end: int,
    dtype: torch.dtype,
    use_token: bool = True,
    use_residual: bool = True,
    use_position: bool = True,
) -> Tensor:
    op = "relative_rows"
    _check(op, "measures", measures, 2, torch.float32, beside=measures)
    _check(op, "moments", moments, 3, torch.float64, beside=measures)
    _check_videos(op, measures, cu_seqlens, tokens_per_frame=tokens_per_frame, columns=columns)
    _check_features(op, measures, features)
    width = _TEMPORAL_COLUMNS * use_residual + _APPEARANCE_COLUMNS * use_token + _POSITION_COLUMNS * use_position
    return measures.new_empty((end - begin, width + (0 if features is None else features.shape[1])), dtype=dtype)


@torch.library.register_fake("score::select")
def _(
    scores: Tensor, cu_seqlens: Tensor, keep: Tensor, total_keep: int, selection: str = "topk", offset: float = 0.5
) -> Tensor:
    _check_logits("select", scores, cu_seqlens, "scores", keep=keep)
    return scores.new_empty((total_keep,), dtype=torch.int64)


@torch.library.register_fake("score::divprune")
def _(
    tokens: Tensor,
    cu_seqlens: Tensor,
    keep: Tensor,
    total_keep: int,
    ordered: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    _check("divprune", "tokens", tokens, 2, *_TOKEN_DTYPES, beside=tokens)
    _check_videos("divprune", tokens, cu_seqlens, keep=keep)
    if weights is not None:
        _check("divprune", "weights", weights, 1, torch.float32, beside=tokens)
    return tokens.new_empty((total_keep,), dtype=torch.int64)


@torch.library.register_fake("score::gumbel_topk")
def _(
    logits: Tensor, cu_seqlens: Tensor, keep: Tensor, num_samples: int, seed: Tensor, total_keep: int
) -> tuple[Tensor, Tensor]:
    _check_logits("gumbel_topk", logits, cu_seqlens, keep=keep)
    _check("gumbel_topk", "seed", seed, 1, torch.int64, beside=logits)
    shape = (num_samples, total_keep)
    return logits.new_empty(shape, dtype=torch.int64), logits.new_empty(shape, dtype=torch.int64)


@torch.library.register_fake("score::plackett_luce_log_prob")
def _(logits: Tensor, cu_seqlens: Tensor, keep: Tensor, order: Tensor) -> Tensor:
    _check_logits("plackett_luce_log_prob", logits, cu_seqlens, keep=keep)
    _check("plackett_luce_log_prob", "order", order, 2, torch.int64, beside=logits)
    return logits.new_empty((order.shape[0], keep.shape[0]))


@torch.library.register_fake("score::plackett_luce_log_prob_backward")
def _(grad: Tensor, logits: Tensor, cu_seqlens: Tensor, keep: Tensor, order: Tensor) -> Tensor:
    op = "plackett_luce_log_prob_backward"
    _check_logits(op, logits, cu_seqlens, keep=keep)
    _check(op, "order", order, 2, torch.int64, beside=logits)
    _check(op, "grad", grad, 2, torch.float32, beside=logits)
    return torch.empty_like(logits)


@torch.library.register_fake("score::gumbel_topk_with_log_prob")
def _(
    logits: Tensor, cu_seqlens: Tensor, keep: Tensor, num_samples: int, seed: Tensor, total_keep: int
) -> tuple[Tensor, Tensor]:
    _check_logits("gumbel_topk_with_log_prob", logits, cu_seqlens, keep=keep)
    _check("gumbel_topk_with_log_prob", "seed", seed, 1, torch.int64, beside=logits)
    index = logits.new_empty((num_samples, total_keep), dtype=torch.int64)
    return index, logits.new_empty((num_samples, keep.shape[0]))


@torch.library.register_fake("score::sample_bernoulli")
def _(logits: Tensor, cu_seqlens: Tensor, num_samples: int, seed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    _check_logits("sample_bernoulli", logits, cu_seqlens)
    _check("sample_bernoulli", "seed", seed, 1, torch.int64, beside=logits)
    videos = cu_seqlens.shape[0] - 1
    mask = logits.new_empty((num_samples, logits.shape[0]), dtype=torch.bool)
    return mask, logits.new_empty((num_samples, videos)), logits.new_empty((num_samples, videos), dtype=torch.int32)


@torch.library.register_fake("score::gather")
def _(tokens: Tensor, index: Tensor) -> Tensor:
    _check("gather", "index", index, 1, torch.int64, beside=tokens)
    return tokens.new_empty((index.shape[0], *tokens.shape[1:]))


@torch.library.register_fake("score::thumbnails")
def _(pixels: Tensor, rows: int, columns: int) -> Tensor:
    _check("thumbnails", "pixels", pixels, 5, torch.uint8, *_TOKEN_DTYPES, beside=pixels)
    for name, value in (("rows", rows), ("columns", columns)):
        torch._check_value(value >= 1, lambda name=name: f"score.thumbnails: {name} must be at least 1")
    return pixels.new_empty((pixels.shape[0], pixels.shape[1], rows, columns), dtype=torch.float32)


@torch.library.register_fake("score::count_sketch")
def _(tokens: Tensor, width: int) -> Tensor:
    _check("count_sketch", "tokens", tokens, 2, *_TOKEN_DTYPES, beside=tokens)
    torch._check_value(width >= 1, lambda: "score.count_sketch: width must be at least 1")
    return tokens.new_empty((tokens.shape[0], width), dtype=torch.float32)


@torch.library.register_fake("score::kept_offsets")
def _(cu_seqlens: Tensor, keep: Tensor) -> Tensor:
    _check_videos("kept_offsets", cu_seqlens, cu_seqlens, keep=keep)
    return torch.empty_like(cu_seqlens)


@torch.library.register_fake("score::compress")
def _(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    keep: Tensor,
    total_keep: int,
    scores: Tensor | None = None,
    selection: str = "topk",
    offset: float = 0.5,
) -> tuple[Tensor, Tensor, Tensor]:
    _check_tokens("compress", tokens, cu_seqlens, tokens_per_frame, keep=keep)
    if scores is not None:
        _check("compress", "scores", scores, 1, torch.float32, beside=tokens)
    kept = tokens.new_empty((total_keep, tokens.shape[1]))
    return kept, tokens.new_empty((total_keep,), dtype=torch.int64), torch.empty_like(cu_seqlens)
