"""What the ops return that return more than one tensor. Each is a tuple, so that it can be unpacked as ever."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Compressed(NamedTuple):
    """What :func:`score_ext.compress` returns.

    Attributes:
        kept: [K, D], the kept tokens, of the tokens' dtype.
        index: int64 [K], their rows in the packed batch, ascending.
        cu_kept: int32 [B + 1], where each video's kept tokens begin and end.
    """

    kept: Tensor
    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    cu_kept: Tensor


class GumbelTopk(NamedTuple):
    """What :func:`score_ext.gumbel_topk` returns.

    Attributes:
        index: int64 [G, K], the rows drawn, ascending.
        order: int64 [G, K], the same rows as they were drawn, video by video.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    order: Tensor


class GumbelTopkWithLogProb(NamedTuple):
    """What :func:`score_ext.gumbel_topk_with_log_prob` returns.

    Attributes:
        index: int64 [G, K], the rows drawn, ascending.
        log_prob: float32 [G, B], the log-probability of drawing each video's tokens in the order in which they were
            drawn. Differentiable in the logits.
    """

    index: Tensor  # type: ignore[assignment]  # hides tuple.index
    log_prob: Tensor


class BernoulliSample(NamedTuple):
    """What :func:`score_ext.sample_bernoulli` returns.

    Attributes:
        mask: bool [G, L], whether each token is kept.
        log_prob: float32 [G, B], the log-probability of each video's mask. Differentiable in the logits.
        count: int32 [G, B], the tokens kept of each video.
    """

    mask: Tensor
    log_prob: Tensor
    count: Tensor  # type: ignore[assignment]  # hides tuple.count
