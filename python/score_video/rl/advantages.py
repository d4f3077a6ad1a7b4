"""Advantages: how much better each sample was than the others of its group, for each factor of the sampling.

A group is the G samples of one video, dimension 0. r is the task reward, c the compression reward, w its weight, and
R the whole reward that a combination makes of them: r + w c, or r w c (:data:`score_video.rl.rewards.COMBINATIONS`).

The paper's figure has one number A for each sample, by which all of its log-probabilities are multiplied, and calls the
estimator split; how it splits is not published. What can be split then is the group (:func:`by_baseline`,
:func:`by_outcome`) or the objectives (:func:`by_objective`). :func:`by_factor` and :func:`by_action` give several
numbers to a sample, and are no reading of it.

Centred: x - mean(x) over the group. Left out: x_g - mean of the other G - 1, which is centred times G / (G - 1).
With ``scale`` what is centred is also divided by its standard deviation (of a sample: G - 1 below) + 1e-4. Then a
group whose samples hardly differ counts as much as one whose samples do, and noise grows to full size once most groups
are saturated; so the default elsewhere is not to. A group of equal rewards has advantage 0, exactly.

A strategy is any function (Rewards, weight, scale, factors) -> {factor: float32 [G, B]}; register yours with
``ADVANTAGES["mine"] = function``. It sees the whole batch of a step: where several processes share that, the trainer
gathers the rewards first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from score_video.errors import ScoreError
from score_video.rl.rewards import Combination, weighted_sum

_EPSILON = 1e-4


@dataclass(frozen=True)
class Rewards:
    """What the samples earned.

    Attributes:
        task, compression: float32 [G, B].
        correct: float32 [G, B], the share of questions answered rightly.
        decisions: integers [G, B] for each factor of the sampling, as in :class:`score_video.rl.sampling.Rollout`.
        combination: what makes one reward of the two.

    Raises:
        ValueError: shapes differ, or G is 1: a group of one has nothing to be compared with.
    """

    task: Tensor
    compression: Tensor
    correct: Tensor
    decisions: Mapping[str, Tensor]
    combination: Combination = weighted_sum

    def total(self, weight: float) -> Tensor:
        """R, float32 [G, B], with this weight of the compression reward."""
        return self.combination(self.task, self.compression, weight)

    def __post_init__(self) -> None:
        shape = self.task.shape
        if len(shape) != 2 or shape[0] < 2:
            raise ScoreError(f"task must be [G, B] with G of at least 2 samples in a group, got {list(shape)}")
        others = {"compression": self.compression, "correct": self.correct}
        others |= {f"decisions[{factor!r}]": count for factor, count in self.decisions.items()}
        for name, tensor in others.items():
            if tensor.shape != shape:
                raise ScoreError(f"{name} must be {list(shape)}, as task is, got {list(tensor.shape)}")


Advantage: TypeAlias = Callable[[Rewards, float, bool, tuple[str, ...]], dict[str, Tensor]]


def leave_one_out(rewards: Rewards, weight: float, scale: bool, factors: tuple[str, ...]) -> dict[str, Tensor]:
    """RLOO (arXiv 2402.14740): R, left out; the same for every factor.

    The baseline does not depend on the sample it is subtracted from, so the policy gradient is unbiased.
    """
    return dict.fromkeys(factors, _left_out(rewards.total(weight), scale))


def joint(rewards: Rewards, weight: float, scale: bool, factors: tuple[str, ...]) -> dict[str, Tensor]:
    """GRPO (arXiv 2402.03300): R, centred; the same for every factor."""
    return dict.fromkeys(factors, _centred(rewards.total(weight), scale))


def by_baseline(rewards: Rewards, weight: float, scale: bool, factors: tuple[str, ...]) -> dict[str, Tensor]:
    """A reading of the paper's split: samples that beat the full model, r above 0, are compared among themselves, and
    so are the others.

    R left out among the members of each part; 0 for a sample that is alone in its part. With the product r w c the part
    above 0 learns to keep less and the part below to keep more, and neither is measured by the other's scale. For task
    rewards that are above 0 where a sample beats the full model, as delta_ce is. The same for every factor.
    """
    total, better = rewards.total(weight), rewards.task > 0
    advantage = _left_out_among(total, better, scale) + _left_out_among(total, ~better, scale)
    return dict.fromkeys(factors, advantage)


def by_objective(rewards: Rewards, weight: float, scale: bool, factors: tuple[str, ...]) -> dict[str, Tensor]:
    """GDPO (arXiv 2601.05242): r and c centred each by itself, r + w c of these; the same for every factor.

    With ``scale`` each is divided by its own deviation, so that w weighs them whatever their sizes, and the sum by its
    deviation over the whole batch. Without it nothing is divided, and this is :func:`joint`.
    """
    advantage = _centred(rewards.task, scale) + weight * _centred(rewards.compression, scale)
    if scale:
        advantage = advantage / (_batch_deviation(advantage) + _EPSILON)
    return dict.fromkeys(factors, advantage)


def by_outcome(rewards: Rewards, weight: float, scale: bool, factors: tuple[str, ...]) -> dict[str, Tensor]:
    """As in DRPO (arXiv 2510.04474): compression is compared only among the samples that are right.

    r left out, plus w times c left out among the group's right samples, 0 for the wrong ones and where fewer than two
    are right: a right sample never loses to a wrong one that kept less. Right: more than half of its questions (our
    reading; one question a video makes it the paper's). The same for every factor.
    """
    right = rewards.correct > 0.5
    advantage = _left_out(rewards.task, scale) + weight * _left_out_among(rewards.compression, right, scale)
    return dict.fromkeys(factors, advantage)


def by_action(rewards: Rewards, weight: float, scale: bool, factors: tuple[str, ...]) -> dict[str, Tensor]:
    """:func:`leave_one_out` with a normaliser for keep-decisions and one for drop-decisions (our reading).

    A factor's advantage is divided by its mean number n of decisions in the group, and multiplied by the mean of n
    over both, so that with as many kept as dropped nothing changes. For token i of probability p the expected gradient
    of ``leave_one_out`` is Cov(reward, i is kept), of which 1 - p comes through the keep-decision and p through the
    drop-decision; here the two parts are weighted: the direction stays, its size is spread otherwise over tokens.

    Laws without the factors keep and drop have nothing to split: for them it is ``leave_one_out``.
    """
    advantages = leave_one_out(rewards, weight, scale, factors)
    if set(factors) != {"keep", "drop"}:
        return advantages
    number = {factor: rewards.decisions[factor].float().mean(0) for factor in factors}  # [B]
    middle = (number["keep"] + number["drop"]) / 2
    # where no sample made such a decision, its log-probability is 0 and so is what it learns
    share = {factor: torch.where(n > 0, middle / n, 0.0) for factor, n in number.items()}
    return {factor: advantages[factor] * share[factor] for factor in factors}


def by_factor(rewards: Rewards, weight: float, scale: bool, factors: tuple[str, ...]) -> dict[str, Tensor]:
    """Of ours, not the paper's split-advantage estimator: each part of the decision gets what it is answerable for.

    ``subset`` (which tokens): r, left out. ``count`` (how many): R, left out. Given the count, which tokens are
    kept does not change how many, so c would only be noise to it. Without a count of its own (sampling "exact") this is
    ``leave_one_out`` of r.

    Raises:
        ValueError: the sampling has other factors: bernoulli's decisions are each a bit of both.
    """
    if not set(factors) <= {"subset", "count"}:
        raise ScoreError(
            f"factors must be subset, or subset and count, for the advantage by_factor, got {', '.join(factors)};"
            " take sampling exact or counted, or another advantage"
        )
    advantages = {
        "subset": _left_out(rewards.task, scale),
        "count": _left_out(rewards.total(weight), scale),
    }
    return {factor: advantages[factor] for factor in factors}


def _centred(x: Tensor, scale: bool) -> Tensor:
    """[G, B] -> [G, B]."""
    x = x - x[0]  # equal rewards become exact zeros before anything is rounded
    centred = x - x.mean(0)
    return centred / (centred.std(0) + _EPSILON) if scale else centred


def _left_out(x: Tensor, scale: bool) -> Tensor:
    """[G, B] -> [G, B]."""
    return _centred(x, scale) * (x.shape[0] / (x.shape[0] - 1))


def _left_out_among(x: Tensor, members: Tensor, scale: bool) -> Tensor:
    """[G, B], members bool [G, B] -> [G, B]: ``_left_out`` in the subgroup; 0 outside, and where it has no two."""
    number = members.sum(0)
    first = x.gather(0, members.int().argmax(0, keepdim=True))  # a member, where there is one
    x = torch.where(members, x - first, 0.0)
    centred = torch.where(members, x - x.sum(0) / number.clamp(min=1), 0.0)
    others = (number - 1).clamp(min=1)  # with a single member centred is 0 already
    if scale:
        centred = centred / ((centred.square().sum(0) / others).sqrt() + _EPSILON)
    return centred * (number.float() / others)


def _batch_deviation(centred: Tensor) -> Tensor:
    """The standard deviation of [G, B] values of mean 0."""
    return (centred.double().square().sum() / (centred.numel() - 1)).sqrt().float()


ADVANTAGES: dict[str, Advantage] = {
    "leave_one_out": leave_one_out,
    "joint": joint,
    "by_baseline": by_baseline,
    "by_objective": by_objective,
    "by_outcome": by_outcome,
    "by_action": by_action,
    "by_factor": by_factor,
}
