"""Selection "diverse": greedily, the token that is best by its own score and by its distance to what is kept already.

The next token is the one with the largest l_i + w * log d_i, where l is its logit and d_i its cosine distance to the
nearest token kept so far (for the first: to the mean direction of its video). With equal logits that is the rule of
DivPrune (arXiv 2503.02175); with logits it is maximal marginal relevance (Carbonell and Goldstein 1998) in products. A
policy that scores each token by itself keeps the same thing sixteen times, or misses what is seen once: here it need
not. Distances are between whitened tokens (:mod:`score_video.whitened`), which tell apart what cosines of the tokens
themselves do not, and have 128 columns at most.

Each token is compared with those that are kept, so a long video is cut into windows, as equal as can be, which are
selected one by one: the work then grows with the tokens and not with their square, and windows are selected side by
side. There are so many that they have :data:`WINDOW` tokens at most, but no more than that they keep :data:`LEAST` each
on average; a window keeps as many as systematic selection would take there. What windows cost in accuracy is in
docs/composite.md.

What is selected comes from :func:`score_ext.divprune`, whose weights are exp(l_i / w); what is sampled is drawn in
torch, from the whole video, because each draw of each sample wants random numbers of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import score_ext
from score_video.errors import ScoreError
from score_video.methods import unit_length
from score_video.packed import PackedVideos

WEIGHT = 6.0
"""w, where a policy's config says nothing else (``distance_weight``), and while it is trained; our choice."""

WINDOW, LEAST = 1024, 32
"""Tokens of a window, at most, where it keeps so many of them at least; our choice."""

_SPAN = 25.0
"""A finite logit further below the largest of its video than so much times w counts as so far below it; +inf and -inf
count as so much more than the largest, and less than the least, which is more than distances between float32 tokens can
make up for."""

# While it is trained: a copy of a drawn token may be drawn, but hardly ever is; and nothing is too small for a float32.
_SMALLEST, _SPAN_DRAWN = 0.01, 50.0
_FLOATS_AT_ONCE = 1 << 22  # distances that are held while probabilities are computed


def select(videos: PackedVideos, logits: Tensor, keep: Tensor, total_keep: int, weight: float = WEIGHT) -> Tensor:
    """The rows that are kept. Does not wait for the device.

    Args:
        videos: B of them. Each of their ``segments`` is whitened as a whole, whatever its windows.
        logits: float32 [L]. +inf comes first, -inf and NaN last, and within a window distances decide among these; but
            an exact copy of a kept token comes after all others of its window, in order of rows.
        keep: int32 [B], 0 to each video's length.
        total_keep: the sum of keep, K.
        weight: of the distance's logarithm beside a logit, above 0.

    Returns:
        int64 [K], ascending.

    Raises:
        ValueError: a count exceeds its video, where the videos are on the CPU.
    """
    spread = score_ext.select(logits, videos.cu_seqlens, keep, total_keep, "systematic")
    ends = _windows(videos, keep)
    of_windows = torch.searchsorted(spread, ends).diff().int()
    weights = (_relative(logits, videos, _SPAN * weight) / weight).exp()
    return score_ext.divprune(videos.whitened, ends.int(), of_windows, total_keep, weights=weights)


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
    weights, drawn, tokens = _relative(logits, videos, _SPAN_DRAWN).exp(), [], videos.whitened
    for (own, count), seed in zip(_budgeted(videos, keep), seeds, strict=True):
        directions, nearest = _directions(tokens[own])
        generator = torch.Generator(logits.device).manual_seed(seed)
        left = weights[own].repeat(samples, 1)  # [S, L], 0 for what is drawn
        for draw in range(count):
            # of independent exponentials with these rates the first to arrive is each in proportion to its rate
            waits = torch.empty_like(left).exponential_(generator=generator).clamp_(min=1e-30)
            rows = (left * _preference(nearest) / waits).argmax(1)
            drawn.append(own.start + rows)
            left.scatter_(1, rows[:, None], 0.0)
            distances = 1 - directions[rows] @ directions.T  # [S, L]
            nearest = torch.minimum(nearest, distances) if draw else distances
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
        weights, first, tokens = _relative(logits, videos, _SPAN_DRAWN).exp(), 0, videos.whitened
        for video, (own, count) in enumerate(_budgeted(videos, keep)):
            rows = (order[:, first : first + count] - own.start).T  # [k, S]
            first += count
            for probabilities, taken in _probabilities(tokens[own], weights[own], rows):
                total[:, video] += probabilities.gather(2, taken[..., None])[..., 0].log().sum(0)
                gradient[:, own] -= probabilities.sum(0)
            gradient[:, own] += torch.zeros_like(gradient[:, own]).scatter_(1, rows.T, 1.0)
        ctx.save_for_backward(gradient, videos.video_of_token)
        return total

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor, None, None, None]:
        gradient, video = ctx.saved_tensors
        return (gradient * outputs[0][:, video]).sum(0), None, None, None


def _probabilities(tokens: Tensor, weights: Tensor, rows: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """What each draw of a video's samples took from: float32 [n, S, L], which sum to 1 over L, and int64 [n, S], what
    it took; n draws of the k at a time.

    Args:
        tokens: [L, D].
        weights: float32 [L], exp of the logits.
        rows: int64 [k, S], as they were drawn.
    """
    directions, from_mean = _directions(tokens)
    drawn = 0
    before = from_mean.expand(1, rows.shape[1], -1)  # [1, S, L], distances to the nearest drawn one; -1: it is drawn
    for taken in torch.split(rows, max(1, _FLOATS_AT_ONCE // max(1, rows.shape[1] * len(tokens)))):
        after = 1 - directions[taken] @ directions.T  # [n, S, L]
        after.clamp_(min=0).scatter_(2, taken[..., None], -1.0)
        if drawn > 0:
            torch.minimum(after[0], before[0], out=after[0])
        for draw in range(1, len(after)):
            torch.minimum(after[draw], after[draw - 1], out=after[draw])
        drawn += len(after)
        nearest = torch.cat([before, after[:-1]])
        worth = weights * _preference(nearest) * (nearest >= 0)
        yield worth / worth.sum(2, keepdim=True), taken
        before = after[-1:]


def _windows(videos: PackedVideos, keep: Tensor) -> Tensor:
    """int64 [n + 1], ``cu_seqlens`` of the windows of all videos, and of empty ones after the last.

    How many there are is known to the device alone where the lengths are there, so n is the most it can be.

    Args:
        videos: B of them.
        keep: int32 [B].
    """
    # windows of each video, int32 [B]
    count = torch.minimum((videos.lengths + WINDOW - 1) // WINDOW, (keep // LEAST).clamp(min=1))
    last = count.cumsum(0)
    windows = torch.arange(len(videos.tokens) // WINDOW + videos.num_videos, device=last.device)
    video = torch.searchsorted(last, windows, right=True).clamp(max=videos.num_videos - 1)
    place = torch.minimum(windows - (last - count)[video], count[video])
    begins = videos.cu_seqlens[video] + place * videos.lengths[video] // count[video].clamp(min=1)
    return torch.cat([begins, videos.cu_seqlens[-1:].long()])


def _directions(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [L, D], of unit length or 0; and [L], how far each is from their mean direction."""
    directions = unit_length(tokens).nan_to_num()
    mean = torch.nn.functional.normalize(directions.sum(0), dim=0)
    return directions, (1 - directions @ mean).clamp(min=0)


def _preference(distances: Tensor) -> Tensor:
    return distances.clamp(min=_SMALLEST).pow(WEIGHT)


def _relative(logits: Tensor, videos: PackedVideos, span: float) -> Tensor:
    """float32 [L], logits by the largest finite one of each video, at least -span where they are finite themselves."""
    finite = logits.isfinite()
    lowest = logits.new_full((videos.num_videos,), -torch.inf)
    largest = lowest.scatter_reduce(0, videos.video_of_token, logits.where(finite, -torch.inf), "amax")
    relative = (logits - largest[videos.video_of_token]).clamp(min=-span)
    return relative.where(finite, logits.nan_to_num(nan=-torch.inf).clamp(-2 * span, span))


def _budgeted(videos: PackedVideos, keep: Sequence[int]) -> list[tuple[slice, int]]:
    """The rows of each video, and how many of them are kept."""
    own = [slice(begin, end) for begin, end in itertools.pairwise(videos.cu_seqlens.tolist())]
    lengths = [rows.stop - rows.start for rows in own]
    if any(count > length for count, length in zip(keep, lengths, strict=True)):
        raise ScoreError(f"keep must be at most each video's length, {lengths}, got {list(keep)}")
    return list(zip(own, keep, strict=True))
