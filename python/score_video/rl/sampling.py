"""Sampling strategies: how a policy's logits become the random subsets that it is trained on.

SCORE's figure has Bernoulli masks; the others are ours. A sampling draws rollouts and says how likely it was to draw
them, split into *factors* whose log-probabilities sum to that of the rollout. Advantages are given to each factor, so
that a strategy may reward a part of the decision for what that part is answerable for
(:mod:`score_video.rl.advantages`). Register another with ``SAMPLINGS["mine"] = sampling``.

Seeds: int64 [B], one for each video, determine the draw. With the same seed and logits a video's samples are the same
whatever else is in the batch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor

import score_ext
from score_video import diverse
from score_video.errors import ScoreError
from score_video.packed import PackedVideos, offsets
from score_video.rl.environment import Selection


@dataclass(frozen=True)
class Rollout:
    """G random subsets of each of B videos.

    Attributes:
        selection: the tokens that the samples keep.
        actions: what the sampling needs to compute the log-probability again under other logits.
        decisions: int32 [G, B] for each factor: over how many decisions its log-probability is a sum.
    """

    selection: Selection
    actions: Mapping[str, Tensor]
    decisions: Mapping[str, Tensor]


class Sampling(Protocol):
    """A sampling strategy.

    Attributes:
        name: its key in :data:`SAMPLINGS`.
        factors: the parts of the decision, keys of what ``log_prob`` returns.
    """

    @property
    def name(self) -> str: ...

    @property
    def factors(self) -> tuple[str, ...]: ...

    def sample(self, logits: Tensor, videos: PackedVideos, keep: Tensor, num_samples: int, seed: Tensor) -> Rollout:
        """Draws ``num_samples`` = G subsets of each video; builds no graph.

        Args:
            logits: float32 [L], finite.
            videos: B of them, L tokens.
            keep: int32 [B], the budgets, 0 to each video's length. Ignored where the sampling chooses the count.
            num_samples: G.
            seed: int64 [B].

        Raises:
            ValueError: a logit is NaN or infinite, or a budget exceeds its video.
        """
        ...

    def log_prob(self, logits: Tensor, videos: PackedVideos, rollout: Rollout) -> dict[str, Tensor]:
        """Each factor's log-probability, float32 [G, B], differentiable in ``logits``; 0 for an empty video."""
        ...


@dataclass(frozen=True)
class Exact:
    """Exactly ``keep`` tokens, without replacement, each in proportion to exp(logit): Gumbel top-k.

    log P = sum over the draws j of [l_j - log sum of exp(l_i) over the tokens not drawn before j] (Plackett 1975): of
    the tokens in the order they were drawn in, whose gradient is as unbiased as the unordered set's, and costs no sum
    over k! orders.
    """

    name: ClassVar[str] = "exact"
    factors: ClassVar[tuple[str, ...]] = ("subset",)

    @torch.no_grad()
    def sample(self, logits: Tensor, videos: PackedVideos, keep: Tensor, num_samples: int, seed: Tensor) -> Rollout:
        _check(logits, videos, seed)
        index, order = score_ext.gumbel_topk(logits, videos.cu_seqlens, keep, num_samples, seed)
        keep_of_sample = keep.expand(num_samples, -1)  # [G, B]
        return Rollout(Selection(index.flatten(), keep_of_sample), {"order": order}, {"subset": keep_of_sample})

    def log_prob(self, logits: Tensor, videos: PackedVideos, rollout: Rollout) -> dict[str, Tensor]:
        keep = rollout.selection.keep[0]  # the same in all samples
        return {"subset": score_ext.plackett_luce_log_prob(logits, videos.cu_seqlens, keep, rollout.actions["order"])}


@dataclass(frozen=True)
class Bernoulli:
    """Each token by itself, kept with probability sigmoid(logit). The count varies, and may be 0; ``keep`` is ignored.

    Factors: ``keep``, the sum of log sigmoid(l_i) over the kept tokens, and ``drop``, the sum of log sigmoid(-l_i)
    over the others.
    """

    name: ClassVar[str] = "bernoulli"
    factors: ClassVar[tuple[str, ...]] = ("keep", "drop")

    @torch.no_grad()
    def sample(self, logits: Tensor, videos: PackedVideos, keep: Tensor, num_samples: int, seed: Tensor) -> Rollout:
        _check(logits, videos, seed)
        # its log-probability is of both factors together, and of logits without a graph: log_prob makes another
        mask, _, count = score_ext.sample_bernoulli(logits, videos.cu_seqlens, num_samples, seed)
        index = mask.nonzero()[:, 1]  # row-major: sample by sample, ascending
        decisions = {"keep": count, "drop": videos.lengths - count}
        return Rollout(Selection(index, count), {"mask": mask}, decisions)

    def log_prob(self, logits: Tensor, videos: PackedVideos, rollout: Rollout) -> dict[str, Tensor]:
        mask = rollout.actions["mask"]  # [G, L]
        log_keep = torch.nn.functional.logsigmoid(logits)
        log_drop = torch.nn.functional.logsigmoid(-logits)
        return {
            "keep": _sum_by_video(torch.where(mask, log_keep, 0.0), videos).float(),
            "drop": _sum_by_video(torch.where(mask, 0.0, log_drop), videos).float(),
        }


@dataclass(frozen=True)
class Counted:
    """The policy chooses the count, then that many tokens as in :class:`Exact`. ``keep`` is ignored.

    log k ~ Normal(log sum_i sigmoid(l_i), deviation^2): log-normal around the policy's own expected count. The action
    is the real number z = log k, and ``count`` is its log-density, which is exact; the tokens kept are exp(z) rounded
    and held between 1 and the video's length, which as a step from action to outcome needs no correction.
    ``subset`` is the Plackett-Luce log-probability given that count. A constant added to all logits changes only the
    count, so the two factors share the network but pull at different things.

    A fixed deviation rather than a free distribution over counts: in our prototype the latter froze. Deploy the
    expected count (rounded, between a floor and a cap), not a sample of it: the noise is there to learn from.

    Attributes:
        deviation: standard deviation of log k; above 0.
    """

    deviation: float = 0.5
    name: ClassVar[str] = "counted"
    factors: ClassVar[tuple[str, ...]] = ("subset", "count")

    def __post_init__(self) -> None:
        if not 0 < self.deviation < math.inf:
            raise ScoreError(f"deviation must be finite and above 0, got {self.deviation}")

    @torch.no_grad()
    def sample(self, logits: Tensor, videos: PackedVideos, keep: Tensor, num_samples: int, seed: Tensor) -> Rollout:
        _check(logits, videos, seed)
        seed_of_sample = _mix(seed, torch.arange(num_samples, device=seed.device)[:, None])  # [G, B]
        noise = _normal(seed_of_sample)
        log_count = (self._mean(logits, videos) + self.deviation * noise).float()
        longest = videos.lengths.expand(num_samples, -1)
        count = log_count.exp().round().clamp(min=1).minimum(longest).int()

        # ops draw as many tokens in every sample of a video; a count of its own takes a copy of the video
        offsets = _offsets_of_copies(videos, num_samples)
        budgets = count.flatten()
        copies, order = score_ext.gumbel_topk(logits.repeat(num_samples), offsets, budgets, 1, seed_of_sample.flatten())
        # a row of the packed copies -> a row of the batch; without tokens there is no row
        index = copies[0] % max(logits.shape[0], 1)
        decisions = {"subset": count, "count": (longest > 0).int()}
        return Rollout(Selection(index, count), {"log_count": log_count, "order": order}, decisions)

    def log_prob(self, logits: Tensor, videos: PackedVideos, rollout: Rollout) -> dict[str, Tensor]:
        count = rollout.selection.keep
        offsets = _offsets_of_copies(videos, count.shape[0])
        subset = score_ext.plackett_luce_log_prob(
            logits.repeat(count.shape[0]), offsets, count.flatten(), rollout.actions["order"]
        )
        deviations = (rollout.actions["log_count"].double() - self._mean(logits, videos)) / self.deviation
        density = -0.5 * deviations.square() - math.log(self.deviation * math.sqrt(2 * math.pi))
        density = torch.where(videos.lengths > 0, density, 0.0)
        return {"subset": subset.view(count.shape), "count": density.float()}

    @staticmethod
    def _mean(logits: Tensor, videos: PackedVideos) -> Tensor:
        """float64 [B]: log of the expected count; 0 for an empty video."""
        # in float64 sigmoid does not vanish before a logit of -700
        expected = _sum_by_video(logits.double().sigmoid()[None], videos)[0]
        return torch.where(videos.lengths > 0, expected, 1.0).log()


@dataclass(frozen=True)
class Diverse:
    """Exactly ``keep`` tokens, drawn one after another, each in proportion to exp(logit) times a power of its distance
    to what was drawn before (:mod:`score_video.diverse`): for policies that are to select by "diverse". Ours.

    Time is that of k passes over a video's tokens.
    """

    name: ClassVar[str] = "diverse"
    factors: ClassVar[tuple[str, ...]] = ("subset",)

    @torch.no_grad()
    def sample(self, logits: Tensor, videos: PackedVideos, keep: Tensor, num_samples: int, seed: Tensor) -> Rollout:
        _check(logits, videos, seed)
        if logits.dtype != torch.float32:
            raise TypeError(f"logits must be float32, got {logits.dtype}")
        counts = keep.tolist()
        order = diverse.sample(videos, logits, counts, num_samples, seed.tolist())
        index = torch.cat([own.sort(1).values for own in torch.split(order, counts, 1)], 1)
        keep_of_sample = keep.expand(num_samples, -1)
        return Rollout(Selection(index.flatten(), keep_of_sample), {"order": order}, {"subset": keep_of_sample})

    def log_prob(self, logits: Tensor, videos: PackedVideos, rollout: Rollout) -> dict[str, Tensor]:
        keep = rollout.selection.keep[0].tolist()  # the same in all samples
        return {"subset": diverse.log_prob(logits, videos, keep, rollout.actions["order"])}


def _check(logits: Tensor, videos: PackedVideos, seed: Tensor) -> None:
    if logits.shape != videos.tokens.shape[:1]:
        raise ScoreError(f"logits must be [{videos.tokens.shape[0]}], one for each token, got {list(logits.shape)}")
    if seed.shape != (videos.num_videos,):
        raise ScoreError(f"seed must be [{videos.num_videos}], one for each video, got {list(seed.shape)}")
    bad = int((~logits.isfinite()).sum())
    if bad:
        raise ScoreError(f"logits must be finite, got {bad} of {len(logits)} that are NaN or infinite")


def _sum_by_video(values: Tensor, videos: PackedVideos) -> Tensor:
    """[G, L] -> float64 [G, B]: float32 would lose the small changes of a long video's sum."""
    zeros = torch.zeros(values.shape[0], videos.num_videos, dtype=torch.float64, device=values.device)
    return zeros.index_add(1, videos.video_of_token, values.double())


def _offsets_of_copies(videos: PackedVideos, copies: int) -> Tensor:
    """int32 [copies * B + 1], the cu_seqlens of the whole batch ``copies`` times over."""
    return offsets(videos.lengths.repeat(copies))


def _mix(seed: Tensor, number: Tensor) -> Tensor:
    """A hash of (seed, number), any int64 that broadcast: SplitMix64 (Steele, Lea and Flood 2014), twice."""
    return _split_mix(_split_mix(seed) + number * _GOLDEN)


_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # as an int64


def _split_mix(state: Tensor) -> Tensor:
    state = state + _GOLDEN  # int64 wraps around
    state = (state ^ _shift_right(state, 30)) * (0xBF58476D1CE4E5B9 - 2**64)
    state = (state ^ _shift_right(state, 27)) * (0x94D049BB133111EB - 2**64)
    return state ^ _shift_right(state, 31)


def _shift_right(value: Tensor, bits: int) -> Tensor:
    """Of the int64 taken as unsigned; torch's own shift copies the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _normal(words: Tensor) -> Tensor:
    """float64 standard normal numbers from random int64."""
    uniform = (_shift_right(words, 12).double() + 0.5) * 2.0**-52  # in (0, 1), both ends excluded
    normal: Tensor = torch.special.ndtri(uniform)
    return normal


SAMPLINGS: dict[str, Sampling] = {sampling.name: sampling for sampling in (Exact(), Bernoulli(), Counted(), Diverse())}
