"""The loss whose gradient is the policy gradient."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from score_video.errors import ScoreError

LOSS_TYPES = ("sum", "mean")
"""How a sample's log-probabilities make its loss: added up, or their mean over its decisions."""


def policy_gradient_loss(
    log_prob: Mapping[str, Tensor],
    old_log_prob: Mapping[str, Tensor] | None,
    advantage: Mapping[str, Tensor],
    epsilon: float | None,
    decisions: Mapping[str, Tensor],
    loss_type: str = "sum",
) -> tuple[Tensor, dict[str, Tensor]]:
    """The surrogate loss of a group-wise policy gradient, the mean over samples and videos, summed over the factors.

    Without ``epsilon`` (Williams 1992, for one step per rollout): -A log P.

    With it (PPO, arXiv 1707.06347, for several steps per rollout): -sqrt(n) min(s A, clip(s, 1 - epsilon,
    1 + epsilon) A) with s = exp((log P - old log P) / sqrt(n)), where n is the number of decisions in the factor. The
    log-ratio of n decisions that each changed by d is about sqrt(n) d in size: undivided it makes s explode for
    thousands of tokens, while divided by n, as in GSPO (arXiv 2507.18071), an epsilon that is right for the subset is
    thousands of times too tight for the count, which is one decision. Divided by the root, s says the same of all, and
    PPO's usual 0.2 will do (our reading). The factor sqrt(n) makes the gradient at the old policy that of -A log P.

    Args:
        log_prob: float32 [G, B] for each factor, from a sampling; differentiable.
        old_log_prob: the same under the policy that drew the samples; None: not known, which goes without epsilon.
        advantage: float32 [G, B] for each factor; taken as constant.
        epsilon: above 0, or None.
        decisions: integers [G, B] for each factor, as in :class:`score_video.rl.sampling.Rollout`.
        loss_type: one of :data:`LOSS_TYPES`. "sum": as above. "mean": each sample's loss is divided by the number of
            its decisions over all factors; with sampling bernoulli the mean over a video's tokens, as the paper's
            figure has it.

    Returns:
        The loss, float32 scalar, and metrics, float32 scalars without a graph: ``entropy``, estimated from the samples,
        in nats per decision; with ``old_log_prob`` also ``approx_kl``, of the old policy from the new one, to second
        order, in nats per decision, and with epsilon ``clip_ratio``, the share of samples and factors whose gradient
        was clipped.

    Raises:
        ValueError: the factors of two arguments differ, epsilon is not above 0 or lacks ``old_log_prob``, or there is
            no such loss_type.
    """
    if loss_type not in LOSS_TYPES:
        raise ScoreError(f"loss_type must be one of {', '.join(LOSS_TYPES)}, got {loss_type!r}")
    given = {"advantage": advantage, "decisions": decisions}
    if old_log_prob is not None:
        given["old_log_prob"] = old_log_prob
    for name, factors in given.items():
        if factors.keys() != log_prob.keys():
            raise ScoreError(f"{name} must have the factors {sorted(log_prob)}, as log_prob has, got {sorted(factors)}")
    if epsilon is not None:
        if not epsilon > 0:
            raise ScoreError(f"epsilon must be above 0, got {epsilon}")
        if old_log_prob is None:
            raise ScoreError("old_log_prob must be given with epsilon, got None")

    number = _total(decisions).clamp(min=1)  # 0 where all videos are empty
    metrics = {"entropy": -_total(log_prob) / number}
    if old_log_prob is not None:
        squares = {factor: (log_prob[factor] - old_log_prob[factor]).square() / 2 for factor in log_prob}
        metrics["approx_kl"] = _total(squares) / number

    if epsilon is None or old_log_prob is None:
        losses = [-(advantage[factor].detach() * log_prob[factor]) for factor in log_prob]
    else:
        losses, clipped = [], []
        for factor in log_prob:
            root = decisions[factor].clamp(min=1).float().sqrt()  # of no decision the log-probability is 0
            ratio = ((log_prob[factor] - old_log_prob[factor].detach()) / root).exp()
            weighted = advantage[factor].detach() * ratio
            bounded = advantage[factor].detach() * ratio.clamp(1 - epsilon, 1 + epsilon)
            losses.append(-root * torch.minimum(weighted, bounded))
            clipped.append(bounded < weighted)
        metrics["clip_ratio"] = torch.stack(clipped).float().mean()
    loss = torch.stack(losses).sum(0)  # [G, B]
    if loss_type == "mean":
        loss = loss / torch.stack([decisions[factor] for factor in log_prob]).sum(0).clamp(min=1)
    return loss.mean(), metrics


def _total(values: Mapping[str, Tensor]) -> Tensor:
    """Over factors, samples and videos."""
    return torch.stack([value.detach().sum() for value in values.values()]).sum()
