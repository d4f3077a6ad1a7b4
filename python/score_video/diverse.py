"""Selection "diverse": greedily, the token that is best by its own score and by its distance to what is kept already.

The next token is the one with the largest l_i + WEIGHT * log d_i, where l is its logit and d_i its cosine distance to
the nearest token kept so far (for the first: to the mean direction of its video). With equal logits that is DivPrune
(arXiv 2503.02175); with logits it is maximal marginal relevance (Carbonell and Goldstein 1998) in products. A policy
that scores each token by itself keeps the same thing sixteen times, or misses what is seen once: here it need not.

What is selected comes from :func:`score_ext.divprune`, whose weights are exp(l_i / WEIGHT); what is sampled is drawn in
torch, because each draw of each sample wants random numbers of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import score_ext
from score_video.errors import ScoreError
from score_video.methods import unit_length
from score_video.packed import PackedVideos

WEIGHT = 2.0
"""Of the distance's logarithm beside a logit; our choice."""

_SPAN = 60.0
"""A finite logit further below the largest of its video counts as so far below it; +inf and -inf count as so much more
than the largest, and less than the least, which is more than distances between float32 tokens can make up for."""

_LEAST = 1e-6  # of a distance that a draw counts, so that a copy of a drawn token may be drawn, but hardly ever is


@dataclass
class Walk:
    """Draws of tokens from one video, one at a time, in S samples at once.

    Attributes:
        directions: float32 [L, D], of unit length or 0.
        nearest: float32 [S, L], distance to the nearest token that a sample has drawn; to the video's mean direction
            before there is one.
        drawn: bool [S, L].
    """

    directions: Tensor
    nearest: Tensor
    drawn: Tensor
    begun: bool = False

    @staticmethod
    def begin(tokens: Tensor, samples: int) -> Walk:
        """Before the first draw, of [L, D] tokens."""
        directions = unit_length(tokens).nan_to_num()
        mean = torch.nn.functional.normalize(directions.sum(0), dim=0)
        nearest = (1 - directions @ mean).expand(samples, -1)
        return Walk(directions, nearest, torch.zeros_like(nearest, dtype=torch.bool))

    def scores(self, logits: Tensor) -> Tensor:
        """float32 [S, L], what the next draw goes by: logits [L] or [S, L] and distances; -inf for a drawn token."""
        together = logits + WEIGHT * self.nearest.clamp(min=_LEAST).log()
        return together.masked_fill(self.drawn, -torch.inf)

    def draw(self, rows: Tensor) -> None:
        """Draws int64 [S], a token for each sample."""
        distance = (1 - self.directions @ self.directions[rows].T).T  # [S, L]
        self.nearest = torch.minimum(self.nearest, distance) if self.begun else distance
        self.begun = True
        self.drawn = self.drawn.scatter(1, rows[:, None], True)


def select(videos: PackedVideos, logits: Tensor, keep: Sequence[int]) -> Tensor:
    """The rows that are kept.

    Args:
        videos: B of them.
        logits: float32 [L]. +inf comes first, -inf and NaN last, and among these distances decide; but an exact copy of
            a kept token comes after all others, in order of rows.
        keep: B counts, 0 to each video's length.

    Returns:
        int64 [K], ascending.

    Raises:
        ScoreError: a count exceeds its video.
    """
    _budgeted(videos, keep)
    finite = logits.isfinite()
    lowest = torch.full((videos.num_videos,), -torch.inf, device=logits.device)
    largest = lowest.scatter_reduce(0, videos.video_of_token, logits.where(finite, -torch.inf), "amax")
    relative = (logits - largest[videos.video_of_token]).clamp(min=-_SPAN)
    relative = relative.where(finite, torch.where(logits == torch.inf, _SPAN, -2 * _SPAN))
    budgets = torch.tensor(keep, dtype=torch.int32, device=logits.device)
    return score_ext.divprune(videos.tokens, videos.cu_seqlens, budgets, sum(keep), weights=(relative / WEIGHT).exp())


def sample(videos: PackedVideos, logits: Tensor, keep: Sequence[int], samples: int, seeds: Sequence[int]) -> Tensor:
    """Rows drawn one after another, each in proportion to exp of what :func:`select` would take the largest of.

    Args:
        videos: B of them.
        logits: float32 [L], finite.
        keep: B counts, 0 to each video's length.
        samples: S.
        seeds: B of them; on one kind of device they decide the draws.

    Returns:
        int64 [S, K], the rows of each video in the order in which they were drawn.

    Raises:
        ScoreError: a count exceeds its video.
    """
    drawn = []
    for (own, count), seed in zip(_budgeted(videos, keep), seeds, strict=True):
        walk = Walk.begin(videos.tokens[own], samples)
        generator = torch.Generator(logits.device).manual_seed(seed)
        for _ in range(count):
            noise = torch.rand(walk.nearest.shape, generator=generator, dtype=torch.float32, device=logits.device)
            gumbel = -(-noise.clamp(1e-9, 1 - 1e-7).log()).log()
            rows = (walk.scores(logits[own]) + gumbel).argmax(1)
            drawn.append(own.start + rows)
            walk.draw(rows)
    return torch.stack(drawn, 1) if drawn else torch.empty(samples, 0, dtype=torch.int64, device=logits.device)


def log_prob(logits: Tensor, videos: PackedVideos, keep: Sequence[int], order: Tensor) -> Tensor:
    """How probable :func:`sample` was to draw those rows in that order, float32 [S, B]; differentiable in the logits.

    Args:
        logits: float32 [L].
        videos: B of them.
        keep: B counts.
        order: int64 [S, K], as ``sample`` returns it.
    """
    result: Tensor = _LogProb.apply(logits, videos, keep, order)  # type: ignore[no-untyped-call]
    return result


class _LogProb(torch.autograd.Function):
    """A graph over k draws of L scores would hold k * L numbers; the gradient of a sample is one number a token."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, videos: PackedVideos, keep: Sequence[int], order: Tensor) -> Tensor:
        samples = len(order)
        total = logits.new_zeros(samples, videos.num_videos)
        gradient = logits.new_zeros(samples, len(logits))  # taken or not, minus the probability, over all draws
        draws = iter(order.T)
        for video, (own, count) in enumerate(_budgeted(videos, keep)):
            walk = Walk.begin(videos.tokens[own], samples)
            for _ in range(count):
                rows = (next(draws) - own.start)[:, None]
                log_probabilities = walk.scores(logits[own]).log_softmax(1)
                total[:, video] += log_probabilities.gather(1, rows)[:, 0]
                gradient[:, own] -= log_probabilities.exp()
                gradient[:, own].scatter_add_(1, rows, torch.ones_like(rows, dtype=logits.dtype))
                walk.draw(rows[:, 0])
        ctx.save_for_backward(gradient, videos.video_of_token)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None]:
        gradient, video = ctx.saved_tensors
        return (gradient * outputs[0][:, video]).sum(0), None, None, None


def _budgeted(videos: PackedVideos, keep: Sequence[int]) -> list[tuple[slice, int]]:
    """The rows of each video, and how many of them are kept."""
    own = [slice(begin, end) for begin, end in itertools.pairwise(videos.cu_seqlens.tolist())]
    lengths = [rows.stop - rows.start for rows in own]
    if any(count > length for count, length in zip(keep, lengths, strict=True)):
        raise ScoreError(f"keep must be at most each video's length, {lengths}, got {list(keep)}")
    return list(zip(own, keep, strict=True))
