"""The ops as typed functions.

Notation, for all of them: a batch of B videos is packed into L tokens, frame-major within a video. ``cu_seqlens``
int32 [B + 1] holds where each video begins and ends (0 first, L last), ``tokens_per_frame`` int32 [B] the tokens of a
frame, ``keep`` int32 [B] each video's budget, ``total_keep`` = K their sum, an integer on the host. Every tensor lies
on one device. Videos may be empty. Non-contiguous tensors are copied first.

Without ``total_keep`` the budgets are summed. Where they lie on a GPU that waits for the device, so give it there if
you know it; within torch.compile, torch.export and a CUDA graph it must be given.

Errors, for all of them: TypeError for an argument of the wrong type or dtype, ValueError for a wrong shape, device or
value; both name the argument, what it must be and what it is. Values that lie on a GPU (offsets, budgets, indices) are
only looked at with ``SCORE_CHECK_VALUES=1`` in the environment, because looking waits for the device; without it wrong
values give meaningless results but never touch memory outside of the tensors.

The same ops without these checks of type are ``torch.ops.score.*``; C++ and torch.compile see those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from score_ext import _library  # noqa: F401  (loads torch.ops.score)
from score_ext._arguments import (
    TOKEN_DTYPES,
    check_kind,
    check_layers,
    check_tensor,
    check_video_tensors,
    op_function,
    total_of,
)
from score_ext.results import BernoulliSample, Compressed, GumbelTopk, GumbelTopkWithLogProb

Metric = Literal["cosine", "l2"]
SelectionRule = Literal["topk", "systematic"]

_ops = torch.ops.score


def _check_state_options(use_token: object, use_residual: object, epsilon: object) -> None:
    check_kind("use_token", use_token, bool, "a bool")
    check_kind("use_residual", use_residual, bool, "a bool")
    check_kind("epsilon", epsilon, float, "a number")


@op_function()
def surprise(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    metric: Metric = "cosine",
    first: float = math.inf,
) -> Tensor:
    """How much each token differs from the one at its place in the frame before.

    ``cosine``: 1 - cos(x_t, x_{t-1}), in [0, 2], exactly 0 where nothing changed; a zero token has cosine 0 with every
    token, as in torch's ``cosine_similarity``. ``l2``: ||x_t - x_{t-1}||_2. The metric of EVS (arXiv 2510.14624);
    SCORE's own residual formula is not published, this is our reading.

    Args:
        tokens: [L, D] float32, float16 or bfloat16; arithmetic is float32. Differentiable.
        cu_seqlens: int32 [B + 1].
        tokens_per_frame: int32 [B]; divides its video's length.
        metric: "cosine" or "l2".
        first: the value of a first frame's tokens, which have no frame before; +inf keeps them first.

    Returns:
        float32 [L]; NaN where a token or the one before it has NaN.
    """
    check_tensor("tokens", tokens, *TOKEN_DTYPES)
    check_video_tensors(cu_seqlens=cu_seqlens, tokens_per_frame=tokens_per_frame)
    check_kind("metric", metric, str, "a string")
    check_kind("first", first, float, "a number")
    return _ops.surprise(tokens, cu_seqlens, tokens_per_frame, metric, first)


@op_function(position="features")
def policy_state(
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
    """Rows ``begin`` to ``end`` of the policy's state, [LayerNorm(x) ; LayerNorm(dX) ; features].

    dX is x_t - x_{t-1}, formed in float32, 0 in a first frame. The LayerNorms have no affine terms: those fold into the
    layer that follows. :func:`policy_logits` uses this a block of rows at a time, so that the state of a whole video is
    never held in memory. Not differentiable by itself.

    Args:
        tokens: [L, D] float32, float16 or bfloat16.
        features: float32 [L, P], further columns of the state, copied as they are: the position, for one. Or None.
        begin, end: the range of rows.
        dtype: what the result is made as: float32, float16 or bfloat16.
        use_token, use_residual: whether those parts are there (for ablations).
        epsilon: added to the variance, under the root.

    Returns:
        [end - begin, S], S = D * (use_token + use_residual) + P.
    """
    check_tensor("tokens", tokens, *TOKEN_DTYPES)
    check_video_tensors(cu_seqlens=cu_seqlens, tokens_per_frame=tokens_per_frame)
    if features is not None:
        check_tensor("features", features, torch.float32)
    check_kind("begin", begin, int, "an integer")
    check_kind("end", end, int, "an integer")
    if dtype not in TOKEN_DTYPES:
        raise TypeError(f"dtype must be float32, float16 or bfloat16, got {dtype}")
    _check_state_options(use_token, use_residual, epsilon)
    return _ops.policy_state(
        tokens, cu_seqlens, tokens_per_frame, features, begin, end, dtype, use_token, use_residual, epsilon
    )


@op_function(position="features")
def policy_logits(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    layers: Sequence[tuple[Tensor, Tensor]],
    features: Tensor | None = None,
    use_token: bool = True,
    use_residual: bool = True,
    epsilon: float = 1e-5,
) -> Tensor:
    """The policy network's logits, one for each token: a small MLP over :func:`policy_state`.

    state -> linear -> GELU [-> linear -> GELU] -> linear -> logit. SCORE's network is not published; our reading. The
    state is formed a block at a time on a GPU and in the backward pass, and never on a CPU: memory stays far below that
    of the tokens.

    Args:
        tokens: [L, D] float32, float16 or bfloat16. Differentiable.
        cu_seqlens: int32 [B + 1].
        tokens_per_frame: int32 [B].
        layers: (weight [outputs, inputs], bias [outputs]) of one or two hidden layers and of the output layer (one
            output), as in torch.nn.Linear. One dtype, float32, float16 or bfloat16, in which the state and the
            products are on a GPU; on a CPU they are float32. Differentiable.
        features: float32 [L, P], appended to the state, or None. Differentiable.
        use_token, use_residual, epsilon: as in :func:`policy_state`.

    Returns:
        float32 [L].
    """
    check_tensor("tokens", tokens, *TOKEN_DTYPES)
    check_video_tensors(cu_seqlens=cu_seqlens, tokens_per_frame=tokens_per_frame)
    if features is not None:
        check_tensor("features", features, torch.float32)
    check_layers(layers)
    _check_state_options(use_token, use_residual, epsilon)
    (w1, b1), *middle, (w_out, b_out) = layers
    w2, b2 = middle[0] if middle else (None, None)
    return _ops.policy_logits(
        tokens, cu_seqlens, tokens_per_frame, w1, b1, w2, b2, w_out, b_out, features, use_token, use_residual, epsilon
    )


@op_function(law="selection")
def select(
    scores: Tensor,
    cu_seqlens: Tensor,
    keep: Tensor,
    total_keep: int | None = None,
    selection: SelectionRule = "topk",
    offset: float = 0.5,
) -> Tensor:
    """Exactly ``keep[b]`` tokens of each video; the same ones on every device.

    ``topk``: the largest scores; ties go to the lower index, NaN ranks last.

    ``systematic``: scores are logits. Inclusion probabilities pi_i = sigmoid(score_i + c), with c such that they sum to
    the budget; walking the tokens in order, one is kept each time the running sum of pi crosses the next integer plus
    ``offset`` (Madow 1949; our choice for inference, see docs/method.md). The kept count of every prefix is within 1 of
    its summed probabilities, and over a uniform offset each token is kept with probability pi_i. +inf is certain, -inf
    and NaN come last, and magnitudes beyond 1e30 count as infinite; where the budget runs out among infinite ones,
    they are equally likely.

    Args:
        scores: float32 [L].
        cu_seqlens: int32 [B + 1].
        keep: int32 [B], 0 to each video's length.
        total_keep: the sum of keep, K; None: it is summed (see above for the price on a GPU).
        selection: "topk" or "systematic".
        offset: a number in [0, 1); only systematic uses it.

    Returns:
        int64 [K]: rows of the packed batch, ascending.
    """
    check_tensor("scores", scores, torch.float32)
    check_video_tensors(cu_seqlens=cu_seqlens, keep=keep)
    check_kind("selection", selection, str, "a string")
    check_kind("offset", offset, float, "a number")
    return _ops.select(scores, cu_seqlens, keep, total_of(keep, total_keep), selection, offset)


@op_function()
def divprune(
    tokens: Tensor,
    cu_seqlens: Tensor,
    keep: Tensor,
    total_keep: int | None = None,
    ordered: bool = False,
    weights: Tensor | None = None,
) -> Tensor:
    """``keep[b]`` tokens of each video that are far from each other, by DivPrune's rule (arXiv 2503.02175); the same
    ones on every device and processor.

    Farthest-first traversal by cosine distance: begins with the token that points furthest away from the mean of its
    video's directions (our reading: the paper's begin needs all pairwise distances), then always takes the one whose
    nearest taken one is furthest; ties go to the lower index. A zero token is at distance 1 from every other, and so is
    one with NaN or infinity. docs/ops.md has the order of the sums, which decides between distances that are equal but
    for rounding. Memory is D floats for each token kept.

    Args:
        tokens: [L, D] float32, float16 or bfloat16.
        cu_seqlens: int32 [B + 1].
        keep: int32 [B], 0 to each video's length.
        total_keep: the sum of keep, K; None: it is summed, as in :func:`select`.
        ordered: whether the rows come in the order in which they were taken; a smaller budget takes the first of them.
        weights: float32 [L], by which distances are multiplied, so that a token is taken for its own worth and for how
            far it is from what is taken already; the first by its cosine distance from the mean. Negative ones and NaN
            count as 0, those above 1e30 as 1e30, products below 2^-126 as 0. None: as if all were equal.

    Returns:
        int64 [K]: rows of the packed batch, video by video, ascending unless ``ordered``.
    """
    check_tensor("tokens", tokens, *TOKEN_DTYPES)
    check_video_tensors(cu_seqlens=cu_seqlens, keep=keep)
    check_kind("ordered", ordered, bool, "a bool")
    if weights is not None:
        check_tensor("weights", weights, torch.float32)
    return _ops.divprune(tokens, cu_seqlens, keep, total_of(keep, total_keep), ordered, weights)


@op_function()
def gumbel_topk(
    logits: Tensor, cu_seqlens: Tensor, keep: Tensor, num_samples: int, seed: Tensor, total_keep: int | None = None
) -> GumbelTopk:
    """Draws ``keep[b]`` tokens of each video without replacement, each in proportion to exp(logit); the Gumbel top-k.

    Random numbers are Philox 4x32-10 of (seed, sample, video, token within the video): the same seed draws the same
    tokens on every device, for any packing and any number of threads. With one seed for each video a video's draw does
    not depend on its number in the batch either.

    Args:
        logits: float32 [L]; NaN is drawn last.
        cu_seqlens: int32 [B + 1].
        keep: int32 [B].
        num_samples: G, independent draws.
        seed: int64 [1], or [B] for one of each video.
        total_keep: the sum of keep, K; None: it is summed, as in :func:`select`.

    Returns:
        The named tuple (index, order): index int64 [G, K], rows ascending; order int64 [G, K], the same rows as they
        were drawn, video by video.
    """
    check_tensor("logits", logits, torch.float32)
    check_video_tensors(cu_seqlens=cu_seqlens, keep=keep)
    check_kind("num_samples", num_samples, int, "an integer")
    check_tensor("seed", seed, torch.int64)
    return GumbelTopk(*_ops.gumbel_topk(logits, cu_seqlens, keep, num_samples, seed, total_of(keep, total_keep)))


@op_function()
def plackett_luce_log_prob(logits: Tensor, cu_seqlens: Tensor, keep: Tensor, order: Tensor) -> Tensor:
    """The log-probability of drawing each video's tokens in that order, without replacement (Plackett 1975).

    log P = sum_j [l_j - log sum of exp(l_i) over the tokens not drawn before j]. With the order of a draw under an
    older policy this is what a probability ratio needs.

    Args:
        logits: float32 [L]. Differentiable.
        cu_seqlens: int32 [B + 1].
        keep: int32 [B].
        order: int64 [G, K] from :func:`gumbel_topk`.

    Returns:
        float32 [G, B]; 0 for a video that keeps nothing, NaN for one with NaN or +inf among its logits.
    """
    check_tensor("logits", logits, torch.float32)
    check_video_tensors(cu_seqlens=cu_seqlens, keep=keep)
    check_tensor("order", order, torch.int64)
    return _ops.plackett_luce_log_prob(logits, cu_seqlens, keep, order)


@op_function()
def gumbel_topk_with_log_prob(
    logits: Tensor, cu_seqlens: Tensor, keep: Tensor, num_samples: int, seed: Tensor, total_keep: int | None = None
) -> GumbelTopkWithLogProb:
    """:func:`gumbel_topk` and the log-probability of what was drawn (:func:`plackett_luce_log_prob`) in one.

    Args: as in :func:`gumbel_topk`; the log-probability is differentiable in the logits.

    Returns:
        The named tuple (index, log_prob): index int64 [G, K], rows ascending; log_prob float32 [G, B].
    """
    check_tensor("logits", logits, torch.float32)
    check_video_tensors(cu_seqlens=cu_seqlens, keep=keep)
    check_kind("num_samples", num_samples, int, "an integer")
    check_tensor("seed", seed, torch.int64)
    total = total_of(keep, total_keep)
    return GumbelTopkWithLogProb(*_ops.gumbel_topk_with_log_prob(logits, cu_seqlens, keep, num_samples, seed, total))


@op_function()
def sample_bernoulli(logits: Tensor, cu_seqlens: Tensor, num_samples: int, seed: Tensor) -> BernoulliSample:
    """Keeps each token by itself with probability sigmoid(logit), so that the count varies.

    Random numbers as in :func:`gumbel_topk`, from a stream of their own.

    Args:
        logits: float32 [L]; NaN is never kept and makes its video's log-probability NaN. Differentiable.
        cu_seqlens: int32 [B + 1].
        num_samples: G.
        seed: int64 [1] or [B].

    Returns:
        The named tuple (mask, log_prob, count): mask bool [G, L]; log_prob float32 [G, B]; count int32 [G, B], the
        tokens kept.
    """
    check_tensor("logits", logits, torch.float32)
    check_video_tensors(cu_seqlens=cu_seqlens)
    check_kind("num_samples", num_samples, int, "an integer")
    check_tensor("seed", seed, torch.int64)
    return BernoulliSample(*_ops.sample_bernoulli(logits, cu_seqlens, num_samples, seed))


@op_function()
def gather(tokens: Tensor, index: Tensor) -> Tensor:
    """Rows of a tensor: tokens, position ids, masks, whatever has one row for each token.

    Args:
        tokens: [L, ...] of any dtype. Differentiable.
        index: int64 [K], rows in any order.

    Returns:
        [K, ...] of the same dtype.
    """
    check_tensor("tokens", tokens)
    check_tensor("index", index, torch.int64)
    return _ops.gather(tokens, index)


@op_function()
def thumbnails(pixels: Tensor, rows: int, columns: int) -> Tensor:
    """Small pictures of large ones: the mean of each of ``rows`` x ``columns`` cells, and over the frames.

    Cells are those of torch's ``adaptive_avg_pool2d``: cell r of R has the rows floor(r H / R) up to, not with,
    ceil((r + 1) H / R). Not differentiable.

    Args:
        pixels: [N, C, F, H, W] uint8, float32, float16 or bfloat16; any strides, nothing is copied. N or C may be 0.
            Arithmetic is float32.
        rows, columns: tokens of a frame down and across, at least 1.

    Returns:
        float32 [N, C, rows, columns], in the units of the pixels.
    """
    check_tensor("pixels", pixels, torch.uint8, *TOKEN_DTYPES)
    check_kind("rows", rows, int, "an integer")
    check_kind("columns", columns, int, "an integer")
    return _ops.thumbnails(pixels, rows, columns)


@op_function()
def count_sketch(tokens: Tensor, width: int) -> Tensor:
    """Wide tokens in few columns, of which products are those of the tokens on average: column w is the sum of the
    tokens' columns w, w + width, w + 2 width, ..., each with a sign drawn at random by its number.

    The count sketch of Charikar, Chen and Farach-Colton (2002), with columns dealt out in turn where theirs are hashed:
    a tower's columns are in no order. Not differentiable.

    Args:
        tokens: [L, D] float32, float16 or bfloat16, D at least 1; infinities and NaN stay in their columns.
        width: W, at least 1.

    Returns:
        float32 [L, W], added up in float32 in that order on every device. 0 in columns that get none, where W > D.
    """
    check_tensor("tokens", tokens, *TOKEN_DTYPES)
    check_kind("width", width, int, "an integer")
    return _ops.count_sketch(tokens, width)


@op_function(law="selection")
def compress(
    tokens: Tensor,
    cu_seqlens: Tensor,
    tokens_per_frame: Tensor,
    keep: Tensor,
    total_keep: int | None = None,
    scores: Tensor | None = None,
    selection: SelectionRule = "topk",
    offset: float = 0.5,
) -> Compressed:
    """The whole path in one call: score, select, gather.

    Args:
        tokens: [L, D] float32, float16 or bfloat16. Differentiable.
        cu_seqlens: int32 [B + 1].
        tokens_per_frame: int32 [B].
        keep: int32 [B].
        total_keep: the sum of keep, K; None: it is summed, as in :func:`select`.
        scores: float32 [L]; None: cosine :func:`surprise`.
        selection, offset: as in :func:`select`.

    Returns:
        The named tuple (kept, index, cu_kept): kept [K, D]; index int64 [K], ascending; cu_kept int32 [B + 1], where
        each video's kept tokens begin and end.
    """
    check_tensor("tokens", tokens, *TOKEN_DTYPES)
    check_video_tensors(cu_seqlens=cu_seqlens, tokens_per_frame=tokens_per_frame, keep=keep)
    if scores is not None:
        check_tensor("scores", scores, torch.float32)
    check_kind("selection", selection, str, "a string")
    check_kind("offset", offset, float, "a number")
    total = total_of(keep, total_keep)
    return Compressed(*_ops.compress(tokens, cu_seqlens, tokens_per_frame, keep, total, scores, selection, offset))


if not TYPE_CHECKING:  # a type checker would take every name for one of this module's

    def __getattr__(name: str) -> Any:
        from score_ext import _deprecated

        return _deprecated.attribute_of_ops(name)
