"""One valid call of every op, as keyword arguments: for tests of what holds for all of them."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from batches import LAYOUTS, Layout, generator, int64
from torch import Tensor

import score_ext

WIDTH = 10
RELATIVE_COLUMNS = 64  # 43 and the position's 21
NUM_SAMPLES = 3
LAYERS = ("w1", "b1", "w2", "b2", "w_out", "b_out")  # the arguments of ops for the policy's network


def linear_layers(sizes: list[int], dtype: torch.dtype = torch.float32, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """(weight, bias) of each layer of an MLP through these sizes, scaled so that the values stay near 1."""
    random = generator(seed)
    layers = []
    for inputs, outputs in itertools.pairwise(sizes):
        weight = torch.randn(outputs, inputs, generator=random) / max(inputs, 1) ** 0.5
        layers.append((weight.to(dtype), torch.randn(outputs, generator=random).to(dtype)))
    return layers


def op_arguments(layout: Layout = LAYOUTS["ragged"], seed: int = 0, width: int = WIDTH) -> dict[str, dict[str, Any]]:
    """Every op of torch.ops.score that a user calls, with arguments for it; tokens are `width` wide."""
    tokens, scores = layout.tokens(width, seed=seed), layout.scores(seed)
    keep, total_keep = layout.keep(seed)
    packed = {"cu_seqlens": layout.cu_seqlens}
    frames = {"tokens": tokens, **packed, "tokens_per_frame": layout.tokens_per_frame}
    budget = {"keep": keep, "total_keep": total_keep}
    features = torch.rand(layout.length, 3, generator=generator(seed + 1))
    (w1, b1), (w2, b2), (w_out, b_out) = linear_layers([2 * width + 3, 12, 8, 1], seed=seed)
    draws = {"num_samples": NUM_SAMPLES, "seed": int64(1234)}
    order = score_ext.gumbel_topk(scores, **packed, **budget, **draws).order
    grad = torch.randn(NUM_SAMPLES, len(layout.videos), generator=generator(seed + 2))
    # rows of frames as long as they can be in two: not all of one row, not all of one column
    columns = torch.tensor([n // 2 if n % 2 == 0 else n for _, n in layout.videos], dtype=torch.int32)
    num_frames = sum(count for count, n in layout.videos if n)
    relative = {**frames, "columns": columns, "num_frames": num_frames}
    measures, moments = torch.ops.score.relative_measures(**relative)
    relative_layers = linear_layers([RELATIVE_COLUMNS + 3, 12, 8, 1], seed=seed)
    weights = dict(zip(LAYERS, itertools.chain(*relative_layers), strict=True))
    sizes = {**packed, "tokens_per_frame": layout.tokens_per_frame, "columns": columns}
    rows = {"features": features, "begin": 0, "end": layout.length, "dtype": torch.float32}
    pixels = torch.randn(layout.length, 3, 2, 6, 7, generator=generator(seed))
    return {
        "surprise": {**frames, "metric": "cosine", "first": 2.5},
        "policy_state": {**frames, "features": features, "begin": 0, "end": layout.length, "dtype": torch.float32},
        "policy_logits": {
            **frames,
            **{"w1": w1, "b1": b1, "w2": w2, "b2": b2, "w_out": w_out, "b_out": b_out},
            "features": features,
        },
        "relative_state": relative,
        "relative_logits": {**relative, **weights, "features": features},
        "relative_measures": relative,
        "relative_rows": {"measures": measures, "moments": moments, **sizes, **rows},
        "select": {"scores": scores, **packed, **budget, "selection": "systematic", "offset": 0.25},
        "divprune": {"tokens": tokens, **packed, **budget, "ordered": True, "weights": scores.exp()},
        "gumbel_topk": {"logits": scores, **packed, **budget, **draws},
        "plackett_luce_log_prob": {"logits": scores, **packed, "keep": keep, "order": order},
        "plackett_luce_log_prob_backward": {"grad": grad, "logits": scores, **packed, "keep": keep, "order": order},
        "gumbel_topk_with_log_prob": {"logits": scores, **packed, **budget, **draws},
        "sample_bernoulli": {"logits": scores, **packed, **draws},
        "gather": {"tokens": tokens, "index": torch.arange(0, layout.length, 3)},
        "thumbnails": {"pixels": pixels, "rows": 2, "columns": 3},
        "count_sketch": {"tokens": tokens, "width": 4},
        "kept_offsets": {**packed, "keep": keep},
        "compress": {**frames, **budget, "scores": scores, "selection": "systematic", "offset": 0.25},
    }


OPS = tuple(op_arguments())
# The tensor argument that each differentiable op has a gradient for, and those of its results that carry one.
DIFFERENTIABLE = {
    "surprise": ("tokens", (0,)),
    "policy_logits": ("tokens", (0,)),
    "relative_logits": ("features", (0,)),
    "plackett_luce_log_prob": ("logits", (0,)),
    "gumbel_topk_with_log_prob": ("logits", (1,)),
    "sample_bernoulli": ("logits", (1,)),
    "gather": ("tokens", (0,)),
    "compress": ("tokens", (0,)),
}


def call(op: str, arguments: dict[str, Any]) -> tuple[Any, ...]:
    """The results of torch.ops.score.<op>, always as a tuple."""
    result = getattr(torch.ops.score, op)(**arguments)
    return tuple(result) if isinstance(result, (tuple, list)) else (result,)


def tensor_arguments(arguments: dict[str, Any]) -> list[str]:
    return [name for name, value in arguments.items() if isinstance(value, Tensor)]
