"""Selection "diverse": greedily, the token that is best by its own score and by its distance to what is kept already.

The next token is the one with the largest l_i + WEIGHT * log d_i, where l is its logit and d_i its cosine distance to
the nearest token kept so far (for the first: to the mean direction of its video). With equal logits that is DivPrune
(arXiv 2503.02175); with logits it is maximal marginal relevance (Carbonell and Goldstein 1998) in products. A policy
that scores each token by itself keeps the same thing sixteen times, or misses what is seen once: here it need not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from score_video.methods import unit_length
from score_video.packed import PackedVideos

WEIGHT = 2.0
"""Of the distance's logarithm beside a logit; our choice."""

_LEAST = 1e-6  # of a distance, so that a copy of a kept token is the last to go, but may


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
        nearest = (1 - directions @ directions.mean(0)).expand(samples, -1)
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


def select(videos: PackedVideos, logits: Tensor, keep: list[int]) -> Tensor:
    """The rows that are kept.

    Args:
        videos: B of them.
        logits: float32 [L].
        keep: B counts, at most each video's length.

    Returns:
        int64 [K], ascending.
    """
    rows, ends = [], videos.cu_seqlens.tolist()
    for begin, end, count in zip(ends[:-1], ends[1:], keep, strict=True):
        walk = Walk.begin(videos.tokens[begin:end], 1)
        drawn = torch.empty(count, dtype=torch.int64, device=logits.device)
        for step in range(count):
            best = walk.scores(logits[begin:end]).argmax(1)  # ties go to the lower row
            drawn[step] = begin + best[0]
            walk.draw(best)
        rows.append(drawn.sort().values)
    return torch.cat(rows) if rows else torch.empty(0, dtype=torch.int64, device=logits.device)
