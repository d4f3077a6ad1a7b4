"""Training-free methods: which tokens of a video to keep, each at the same exact budget.

A method is either a score (:class:`ScoreMethod`: one number a token, by which its user selects) or a rule with a budget
of its own (:class:`IndexMethod`). Both take a packed batch and return rows:

    method = find_method("vidcom2")
    index = method.index(tokens, cu_seqlens, tokens_per_frame, keep)

To add one: write the function, add it to ``METHODS``. The formulas are those of the papers named, written from the
papers; where a paper leaves something open the docstring says "our reading".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

import score_ext
from score_ext.ops import SelectionRule
from score_video.checks import is_integer
from score_video.errors import ScoreError
from score_video.packed import PackedVideos
from score_video.renamed import moved_argument

Scores = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(tokens [L, D], cu_seqlens int32 [B + 1], tokens_per_frame int32 [B], keep int32 [B]) -> float32 [L]."""

Index = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""As ``Scores`` -> int64 [K], ascending, exactly ``keep[b]`` rows of each video."""


RANDOM = "random"


def with_seed(method: Any, seed: int) -> Any:
    """The random rule (or its name) with another seed; anything else as it is."""
    is_random = isinstance(method, RandomMethod) or (isinstance(method, str) and method == RANDOM)
    return RandomMethod(seed) if is_random else method


former_seed = moved_argument("seed", "RandomMethod(seed)", with_seed)
"""Decorates what took a seed up to 0.2, for the random rule alone."""


@dataclass(frozen=True)
class ScoreMethod:
    """Keeps by a score, 0 or more: the largest with selection "topk"; with "systematic" spread over the video, each
    token with a probability about in proportion to its score (whose logarithm is the logit that it takes)."""

    name: str
    scores: Scores

    @former_seed
    def index(
        self,
        tokens: Tensor,
        cu_seqlens: Tensor,
        tokens_per_frame: Tensor,
        keep: Tensor,
        *,
        selection: SelectionRule = "topk",
    ) -> Tensor:
        """The rows to keep.

        Args:
            tokens: [L, D] float32, float16 or bfloat16.
            cu_seqlens: int32 [B + 1].
            tokens_per_frame: int32 [B].
            keep: int32 [B], 0 to each video's length.
            selection: how :func:`score_ext.select` picks by the score.

        Returns:
            int64 [K], ascending; K is the sum of ``keep``.

        Raises:
            TypeError, ValueError: as the ops of :mod:`score_ext` do.
        """
        scores = self.select_by(tokens, cu_seqlens, tokens_per_frame, keep, selection)
        return score_ext.select(scores, cu_seqlens, keep, selection=selection)

    def select_by(
        self, tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, keep: Tensor, selection: SelectionRule
    ) -> Tensor:
        """What :func:`score_ext.select` is to be given with a selection, float32 [L]: the scores, or their logarithms.

        Tokens as in :meth:`index`. A score of 0 has the logarithm -inf: such a token comes after all others.
        """
        scores = self.scores(tokens, cu_seqlens, tokens_per_frame, keep)
        return scores.log() if selection == "systematic" else scores


@dataclass(frozen=True)
class IndexMethod:
    """Keeps by a rule of its own, so that no selection can be chosen."""

    name: str
    rows: Index

    @former_seed
    def index(
        self,
        tokens: Tensor,
        cu_seqlens: Tensor,
        tokens_per_frame: Tensor,
        keep: Tensor,
        *,
        selection: SelectionRule = "topk",
    ) -> Tensor:
        """As :meth:`ScoreMethod.index`. Raises ScoreError for any other selection than the default."""
        if selection != "topk":
            raise ScoreError(f"{self.name} selects by a rule of its own and takes no selection, got {selection!r}")
        return self.rows(tokens, cu_seqlens, tokens_per_frame, keep)


@dataclass(frozen=True)
class RandomMethod(IndexMethod):
    """Keeps each set of k tokens with equal probability: ``Compressor(RandomMethod(seed=3))``; "random" has seed 0.

    Attributes:
        seed: what it draws from, 64 bits; the same seed keeps the same tokens on every device.

    Raises:
        TypeError, ScoreError: the seed is no integer of 64 bits.
    """

    seed: int = 0
    name: str = field(default=RANDOM, init=False, repr=False)
    rows: Index = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not is_integer(self.seed):
            raise TypeError(f"seed must be an integer, got {self.seed!r}")
        if not -(2**63) <= self.seed < 2**63:
            raise ScoreError(f"seed must fit in 64 bits, got {self.seed}")
        object.__setattr__(self, "rows", partial(_random, seed=self.seed))


Method = ScoreMethod | IndexMethod


class ScoringRule(Protocol):
    """A rule of a user's own: ``Compressor(MyRule())``."""

    def scores(self, videos: PackedVideos) -> Tensor:
        """One number for each token, float [L], 0 or more: the larger, the sooner it is kept."""
        ...


def find_method(name: str) -> Method:
    """The method of that name. Raises ValueError, with the names there are, for any other."""
    if name not in METHODS:
        raise ScoreError(f"there is no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name]


def _surprise(tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, keep: Tensor) -> Tensor:
    """Cosine distance to the frame before; the first frame comes before everything else."""
    return score_ext.surprise(tokens, cu_seqlens, tokens_per_frame)


def _surprise_l2(tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, keep: Tensor) -> Tensor:
    """Euclidean distance to the frame before; the first frame comes before everything else."""
    return score_ext.surprise(tokens, cu_seqlens, tokens_per_frame, "l2")


def _norm(tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, keep: Tensor) -> Tensor:
    """||x||_2."""
    largest = _largest(tokens, 1)
    norms: Tensor = torch.linalg.vector_norm(tokens / largest, dim=1)
    return norms * largest[:, 0]


def _evs(tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, keep: Tensor) -> Tensor:
    """EVS (arXiv 2510.14624): the first frame whole, then the largest cosine distances to the frame before.

    EVS itself raises a budget that is smaller than the first frame. At an exact budget something has to go: here it is
    spent on tokens spread evenly over the first frame (our reading). With any larger budget this keeps what
    ``surprise`` keeps, whose rule is the same but for taking the first frame from its top.
    """
    frame = torch.minimum(tokens_per_frame, cu_seqlens.diff())
    scores = score_ext.surprise(tokens, cu_seqlens, tokens_per_frame, first=torch.finfo(torch.float32).max)
    scores[_spread_over_first_frame(cu_seqlens, frame, torch.minimum(keep, frame))] = torch.inf
    return scores


def _evs_capped(tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, keep: Tensor) -> Tensor:
    """EVS with at most half of the budget for the first frame, spread evenly over it (our variant: a fairer rival)."""
    frame = torch.minimum(tokens_per_frame, cu_seqlens.diff())
    # a video of one frame has nothing else to spend on
    several = tokens_per_frame < cu_seqlens.diff()
    budget = torch.where(several, torch.minimum((keep + 1) // 2, frame), torch.minimum(keep, frame))
    scores = score_ext.surprise(tokens, cu_seqlens, tokens_per_frame, first=0.0)
    scores[_spread_over_first_frame(cu_seqlens, frame, budget)] = torch.inf
    return scores


def _spread_over_first_frame(cu_seqlens: Tensor, frame: Tensor, budget: Tensor) -> Tensor:
    """int64 [sum of budget]: rows spread evenly over each video's first ``frame`` tokens; both int32 [B]."""
    length = int(cu_seqlens[-1])
    outside = _row_in_video(cu_seqlens, length) >= _of_each_row(frame, cu_seqlens)
    equal = torch.zeros(length, dtype=torch.float32, device=cu_seqlens.device).masked_fill_(outside, -torch.inf)
    return score_ext.select(equal, cu_seqlens, budget, selection="systematic")


def _evs_dithered(tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, keep: Tensor) -> Tensor:
    """EVS's score spread by systematic sampling (our variant).

    Each token is kept with a probability about in proportion to its surprise; one of the first frame counts as having
    the mean surprise of its video's other frames. See docs/results.md.
    """
    surprise = score_ext.surprise(tokens, cu_seqlens, tokens_per_frame, first=0.0)
    lengths = cu_seqlens.diff()
    total = surprise.new_zeros(len(lengths)).index_add_(0, _video_of_row(cu_seqlens), surprise)
    mean = total / (lengths - tokens_per_frame).clamp(min=1)
    first_frame = _row_in_video(cu_seqlens, tokens.shape[0]) < _of_each_row(tokens_per_frame, cu_seqlens)
    scores = torch.where(first_frame, _of_each_row(mean, cu_seqlens), surprise)
    return score_ext.select(scores.log(), cu_seqlens, keep, selection="systematic")


_GOLDEN_RATIO = 2654435769  # its fraction, times 2^32: whole numbers are the same on every device


def _uniform(tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, keep: Tensor) -> Tensor:
    """One token of each of k equal stretches in (t, y, x) order, at places in these that walk by the golden ratio: with
    equal steps it would fall on the same few columns and rows of every frame (and do worse than random)."""
    rows = [torch.empty(0, dtype=torch.int64, device=tokens.device)]
    for start, end, _, k in _videos(cu_seqlens, tokens_per_frame, keep):
        number = torch.arange(k + 1, device=tokens.device)
        bounds = number * (end - start) // max(k, 1)
        place = (number[:-1] * _GOLDEN_RATIO + 2**31) % 2**32  # of 2^32, in the stretch
        rows.append(start + bounds[:-1] + (place * bounds.diff() >> 32))
    return torch.cat(rows)


def _random(tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, keep: Tensor, *, seed: int) -> Tensor:
    equal = torch.zeros(tokens.shape[0], dtype=torch.float32, device=tokens.device)
    seeds = torch.tensor([seed], dtype=torch.int64, device=tokens.device)
    return score_ext.gumbel_topk(equal, cu_seqlens, keep, 1, seeds).index[0]


def _vidcom2(tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, keep: Tensor) -> Tensor:
    """VidCom2 (arXiv 2505.14454): more tokens for frames unlike the rest, and in each the least typical ones.

    The half of the channels that varies least over the video, L2-normalised; a token's typicality is the sum of
    exp(-d^2 / 2a) over a = 2^-3 .. 2^1, to the video's centre and to its frame's; a frame's uniqueness is minus its
    mean typicality to the video. See :func:`frame_budgets` for how many each frame keeps. Centres are plain means of
    the normalised tokens (our reading).
    """
    frame_ends, frame_keep, typicality = [0], [], []
    for start, end, n, k in _videos(cu_seqlens, tokens_per_frame, keep):
        of_tokens, uniqueness = vidcom2_measures(tokens[start:end], n)
        typicality.append(of_tokens)
        frame_keep += frame_budgets(uniqueness, n, k)
        frame_ends += range(start + n, end + 1, n)
    if not typicality:
        return torch.empty(0, dtype=torch.int64, device=tokens.device)
    # every frame of every video is now a video of its own
    cu_frames = torch.tensor(frame_ends, dtype=torch.int32, device=tokens.device)
    keep_frames = torch.tensor(frame_keep, dtype=torch.int32, device=tokens.device)
    return score_ext.select(-torch.cat(typicality), cu_frames, keep_frames, sum(frame_keep))


def vidcom2_measures(tokens: Tensor, tokens_per_frame: int) -> tuple[Tensor, list[float]]:
    """What VidCom2 goes by, whatever the budget.

    Args:
        tokens: [T * N, D], of one video.
        tokens_per_frame: N.

    Returns:
        typicality: float32 [T * N]; in each frame the least typical tokens are kept.
        uniqueness: T numbers, what :func:`frame_budgets` shares a budget by.
    """
    frames = _least_varying_half(tokens.float()).view(len(tokens) // tokens_per_frame, tokens_per_frame, -1)
    to_video = _closeness(frames, frames.mean((0, 1), keepdim=True))  # [T, N]
    to_frame = _closeness(frames, frames.mean(1, keepdim=True))
    return (to_video + to_frame).flatten(), (-to_video.mean(1)).tolist()


def _least_varying_half(tokens: Tensor) -> Tensor:
    """[L, D] -> [L, max(1, D // 2)], each row of unit length."""
    largest = _largest(tokens, 0)
    deviation = (tokens / largest).std(0, correction=0) * largest[0]
    channels = deviation.argsort(stable=True)[: max(1, tokens.shape[1] // 2)]
    return unit_length(tokens[:, channels.sort().values])


def unit_length(tokens: Tensor) -> Tensor:
    """x / |x| of tokens [L, D], float32; 0 for a zero token. Right for every finite token, also where its squares are
    no floats."""
    units: Tensor = tokens / _largest(tokens, 1)
    norm: Tensor = torch.linalg.vector_norm(units, dim=1, keepdim=True)
    return units / norm.clamp_min(1)  # at least 1, unless it is 0


def _largest(tokens: Tensor, dim: int) -> Tensor:
    """Largest magnitudes over a dimension of tokens, float32, kept as 1 there; 1 where all are 0. What is divided by it
    has squares that neither overflow nor all vanish."""
    largest: Tensor = torch.linalg.vector_norm(tokens, torch.inf, dim=dim, keepdim=True).float()
    return largest.where(largest != 0, 1.0)


def _closeness(tokens: Tensor, centre: Tensor) -> Tensor:
    """Sum of Gaussian kernels of five widths between tokens [T, N, D] and centres [T or 1, 1, D] -> [T, N]."""
    # |x - c|^2 by its parts, so that no difference of the size of the tokens is formed
    product = (tokens @ centre.transpose(1, 2)).squeeze(2)
    squared = (tokens.square().sum(2) + centre.square().sum(2) - 2 * product).clamp_min(0)
    return torch.stack([torch.exp(-squared / (2 * 2.0**power)) for power in range(-3, 2)]).sum(0)


def frame_budgets(uniqueness: list[float], tokens_per_frame: int, keep: int) -> list[int]:
    """How VidCom2 shares a video's budget among its frames, made to sum to it exactly.

    Frame t is due N R (1 + p_t - mean p) tokens, p = softmax(uniqueness / 0.01), R = keep / (T N). Dues are rounded
    down, held between 1 (0 where there are fewer tokens than frames) and N, and what is over or missing goes to or
    comes from the frame furthest from its due, one token at a time (our reading of "reconcile").

    Args:
        uniqueness: one number for each frame; the larger the more unlike the video.
        tokens_per_frame: N.
        keep: 0 to T N.

    Returns:
        counts, one for each frame, 0 to N each, that sum to ``keep``.
    """
    frames = len(uniqueness)
    p = torch.tensor(uniqueness, dtype=torch.float64, device="cpu").div(0.01).nan_to_num().softmax(0)
    due = keep / frames * (1 + p - 1 / frames)  # [T], sums to keep
    least = 1 if keep >= frames else 0
    count = due.floor().clamp(least, tokens_per_frame)
    while (missing := keep - int(count.sum())) != 0:
        if missing > 0:
            count[(due - count).masked_fill(count >= tokens_per_frame, -torch.inf).argmax()] += 1
        else:
            count[(due - count).masked_fill(count <= least, torch.inf).argmin()] -= 1
    return [int(c) for c in count]


def _divprune(tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, keep: Tensor) -> Tensor:
    """DivPrune (arXiv 2503.02175): greedily, the token whose nearest kept one is furthest by cosine distance. See
    :func:`score_ext.divprune`."""
    return score_ext.divprune(tokens, cu_seqlens, keep)


def _divprune_whitened(tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, keep: Tensor) -> Tensor:
    """DivPrune's rule on whitened tokens (:attr:`score_video.packed.PackedVideos.whitened`). Ours."""
    columns = tokens_per_frame  # frames of one row: where a token is in its frame does not matter
    videos = PackedVideos(tokens, cu_seqlens, tokens_per_frame, columns)
    return score_ext.divprune(videos.whitened, cu_seqlens, keep)


def _videos(cu_seqlens: Tensor, tokens_per_frame: Tensor, keep: Tensor) -> Iterator[tuple[int, int, int, int]]:
    """(first row, row after the last, tokens per frame, budget) of each video that is not empty."""
    ends = cu_seqlens.tolist()
    for start, end, n, k in zip(ends[:-1], ends[1:], tokens_per_frame.tolist(), keep.tolist(), strict=True):
        if not 0 <= k <= end - start:
            raise ScoreError(f"keep must lie between 0 and each video's length, got {k} of {end - start}")
        if end > start:
            yield start, end, n, k


def _of_each_row(values: Tensor, cu_seqlens: Tensor) -> Tensor:
    """[B] values of the videos -> [L] values of their tokens."""
    return values.repeat_interleave(cu_seqlens.diff())


def _video_of_row(cu_seqlens: Tensor) -> Tensor:
    """int64 [L]: the number of each token's video."""
    return _of_each_row(torch.arange(len(cu_seqlens) - 1, device=cu_seqlens.device), cu_seqlens)


def _row_in_video(cu_seqlens: Tensor, length: int) -> Tensor:
    """[L]: each token's place within its video."""
    return torch.arange(length, device=cu_seqlens.device) - _of_each_row(cu_seqlens[:-1], cu_seqlens)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        ScoreMethod("surprise", _surprise),
        ScoreMethod("surprise-l2", _surprise_l2),
        ScoreMethod("norm", _norm),
        ScoreMethod("evs", _evs),
        ScoreMethod("evs-capped", _evs_capped),
        IndexMethod("evs-dithered", _evs_dithered),
        IndexMethod("uniform", _uniform),
        RandomMethod(),
        IndexMethod("vidcom2", _vidcom2),
        IndexMethod("divprune", _divprune),
        IndexMethod("divprune-whitened", _divprune_whitened),
    )
}
