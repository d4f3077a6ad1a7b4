"""Rewards: what a sample is worth, by how the frozen model answers (task) and by how little it kept (compression).

The paper's figure has the task reward :class:`DeltaCE` times a reward for sparsity, whose formula it does not show; the
others are ours. Any function of the same form will do; register it with ``REWARDS["mine"] = function``,
``COMPRESSIONS["mine"] = function`` or ``COMBINATIONS["mine"] = function``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from score_video.errors import ScoreError
from score_video.packed import PackedVideos
from score_video.rl.environment import Outcome, Selection

TaskReward: TypeAlias = Callable[[Outcome], Tensor]
"""What the model made of the samples -> float32 [G, B]. With an attribute ``needs_divergence`` or ``needs_full`` that
is true, the outcome has its ``divergence`` or its ``full_log_prob``."""

CompressionReward: TypeAlias = Callable[[Tensor, float], Tensor]
"""(kept_ratio float32 [G, B], target retention) -> float32 [G, B]; the larger, the fewer were kept."""

Combination: TypeAlias = Callable[[Tensor, Tensor, float], Tensor]
"""(task reward float32 [G, B], compression reward float32 [G, B], its weight) -> the whole reward, float32 [G, B]."""


@dataclass(frozen=True)
class LogProb:
    """max(log-probability of the right answer, floor).

    The floor keeps one hopeless question from outweighing all others; a wrong answer is wrong at e^-3 already.

    Attributes:
        floor: below 0.
    """

    floor: float = -3.0

    def __post_init__(self) -> None:
        if not -math.inf < self.floor < 0:
            raise ScoreError(f"floor must be finite and below 0, got {self.floor}")

    def __call__(self, outcome: Outcome) -> Tensor:
        return outcome.log_prob.clamp(min=self.floor)


def correct(outcome: Outcome) -> Tensor:
    """The share of questions answered rightly. Most groups' samples agree on it, and then it teaches nothing."""
    return outcome.correct


@dataclass(frozen=True)
class Fidelity:
    """-KL(answers on all tokens || answers on the kept ones): closeness to the model's own output; needs no labels."""

    needs_divergence: ClassVar[bool] = True

    def __call__(self, outcome: Outcome) -> Tensor:
        if outcome.divergence is None:
            raise ScoreError("outcome.divergence must be there for the reward fidelity, got None")
        return -outcome.divergence


@dataclass(frozen=True)
class DeltaCE:
    """Cross-entropy of the answer on all tokens minus that on the kept ones (the paper's figure): above 0 for a sample
    that beats the full model. Its sign is our reading, since a reward has to grow as the cross-entropy falls."""

    needs_full: ClassVar[bool] = True

    def __call__(self, outcome: Outcome) -> Tensor:
        if outcome.full_log_prob is None:
            raise ScoreError("outcome.full_log_prob must be there for the reward delta_ce, got None")
        return outcome.log_prob - outcome.full_log_prob


def needs(reward: TaskReward) -> dict[str, bool]:
    """What a reward asks the environment for, as arguments of its ``answer``: ``divergence``, ``full``."""
    asked = {name: bool(getattr(reward, f"needs_{name}", False)) for name in ("divergence", "full")}
    return {name: True for name, needed in asked.items() if needed}


def linear(kept_ratio: Tensor, target: float) -> Tensor:
    """1 - kept_ratio: fewer is always better; the target is not used."""
    return 1 - kept_ratio


def hinged(kept_ratio: Tensor, target: float) -> Tensor:
    """-max(0, kept_ratio - target) / target: 0 at the target or below, -1 at twice the target.

    Nothing is gained below the target, so a policy cannot be paid for dropping everything.
    """
    if not 0 < target <= 1:
        raise ScoreError(f"target must lie in (0, 1], got {target}")
    return -(kept_ratio - target).clamp(min=0) / target


def weighted_sum(task: Tensor, compression: Tensor, weight: float) -> Tensor:
    """task + weight * compression."""
    return task + weight * compression


def product(task: Tensor, compression: Tensor, weight: float) -> Tensor:
    """task * weight * compression (the paper's figure).

    With a task reward of either sign, as DeltaCE is, and a compression reward above 0, fewer tokens are worth more to a
    sample above 0 and *less* to one below it, which comes nearer to 0 by keeping more. The most that a video can get on
    which no sample beats the full model is 0, for keeping everything.
    """
    return task * (weight * compression)


def kept_ratio(selection: Selection, videos: PackedVideos) -> Tensor:
    """float32 [G, B]: the fraction of each video's tokens that each sample keeps; 0 for an empty video."""
    lengths = videos.lengths
    return selection.keep.float() / torch.where(lengths > 0, lengths, 1)


def check_finite(name: str, reward: Tensor) -> Tensor:
    """The reward [G, B] as it is. Raises ValueError where it is NaN or infinite: says which reward, how many, where."""
    bad = ~reward.isfinite()
    if bad.any():
        places = ", ".join(f"sample {g} of video {b}" for g, b in bad.nonzero()[:3].tolist())
        more = ", ..." if bad.sum() > 3 else ""
        raise ScoreError(
            f"reward {name!r} must be finite, got {int(bad.sum())} of {bad.numel()} values NaN or infinite"
            f" ({places}{more})"
        )
    return reward


REWARDS: dict[str, TaskReward] = {
    "log_prob": LogProb(),
    "correct": correct,
    "fidelity": Fidelity(),
    "delta_ce": DeltaCE(),
}

COMPRESSIONS: dict[str, CompressionReward] = {"linear": linear, "hinged": hinged}

COMBINATIONS: dict[str, Combination] = {"sum": weighted_sum, "product": product}
