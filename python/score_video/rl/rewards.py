"""Rewards: what a sample is worth, by how the frozen model answers (task) and by how little it kept (compression).

SCORE's rewards are not published; all of them are our reading. Any function of the same form will do; register it with
``REWARDS["mine"] = function`` or ``COMPRESSIONS["mine"] = function``.
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
"""What the model made of the samples -> float32 [G, B]. With an attribute ``needs_divergence`` that is true, the
outcome has its divergence."""

CompressionReward: TypeAlias = Callable[[Tensor, float], Tensor]
"""(kept_ratio float32 [G, B], target retention) -> float32 [G, B]; the larger, the fewer were kept."""


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


def needs_divergence(reward: TaskReward) -> bool:
    """Whether a reward asks the environment for the divergence (its attribute of that name; without one: no)."""
    return bool(getattr(reward, "needs_divergence", False))


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


REWARDS: dict[str, TaskReward] = {"log_prob": LogProb(), "correct": correct, "fidelity": Fidelity()}

COMPRESSIONS: dict[str, CompressionReward] = {"linear": linear, "hinged": hinged}
