"""The surrogate loss by hand, and its expected gradient by brute force."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from score_video.packed import PackedVideos
from score_video.rl.advantages import ADVANTAGES, Rewards
from score_video.rl.environment import Selection
from score_video.rl.objective import policy_gradient_loss
from score_video.rl.sampling import SAMPLINGS, Rollout

COUNTS = {"subset": torch.tensor([[4, 9], [16, 1]]), "count": torch.ones(2, 2, dtype=torch.int32)}
ADVANTAGE = {"subset": torch.tensor([[1.0, -1.0], [2.0, -2.0]]), "count": torch.tensor([[0.5, 0.0], [-0.5, 1.0]])}


def log_probs() -> dict[str, Tensor]:
    subset = torch.tensor([[-4.0, -8.0], [-12.0, -1.0]], requires_grad=True)
    count = torch.tensor([[-1.0, -0.5], [-2.0, 0.25]], requires_grad=True)
    return {"subset": subset, "count": count}


def test_without_clipping() -> None:
    log_prob = log_probs()
    advantage = {factor: value.clone().requires_grad_() for factor, value in ADVANTAGE.items()}
    loss, metrics = policy_gradient_loss(log_prob, None, advantage, None, COUNTS)
    # -(-4 + 8 - 24 + 2) and -(-0.5 + 0 + 1 + 0.25), over 2 samples x 2 videos
    assert loss.item() == pytest.approx((18 - 0.75) / 4)
    loss.backward()
    for factor, value in log_prob.items():
        torch.testing.assert_close(value.grad, -ADVANTAGE[factor] / 4)
        assert advantage[factor].grad is None
    assert set(metrics) == {"entropy"}
    assert float(metrics["entropy"]) == pytest.approx((25 + 3.25) / 34)  # nats over decisions
    assert not metrics["entropy"].requires_grad


def test_mean_over_the_decisions() -> None:
    log_prob = log_probs()
    loss, _ = policy_gradient_loss(log_prob, None, ADVANTAGE, None, COUNTS, "mean")
    # losses 4 + 0.5, -8 + 0, 24 - 1 and -2 - 0.25, each over its decisions of both factors
    assert loss.item() == pytest.approx((4.5 / 5 - 8 / 10 + 23 / 17 - 2.25 / 2) / 4)
    with pytest.raises(ValueError, match="loss_type must be one of sum, mean, got 'token'"):
        policy_gradient_loss(log_prob, None, ADVANTAGE, None, COUNTS, "token")


def test_the_papers_loss_written_out() -> None:
    """-(1/K) sum_k A^(k) (1/TN) sum_i log pi(m_i^(k)), the figure's, and its gradient."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, generator=generator, requires_grad=True)
    videos = PackedVideos.from_frames([torch.zeros(7, 1, 1, 1)])
    sampling = SAMPLINGS["bernoulli"]
    rollout = sampling.sample(logits, videos, torch.ones(1, dtype=torch.int32), 5, torch.tensor([3]))
    advantage = torch.randn(5, 1, generator=generator)
    log_prob = sampling.log_prob(logits, videos, rollout)
    loss, _ = policy_gradient_loss(
        log_prob, None, dict.fromkeys(sampling.factors, advantage), None, rollout.decisions, "mean"
    )
    mask = rollout.actions["mask"].float()  # [K, TN]
    of_mask = mask * logits.sigmoid().log() + (1 - mask) * (1 - logits.sigmoid()).log()
    expected = -(advantage[:, 0] * of_mask.mean(1)).mean()
    torch.testing.assert_close(loss, expected)
    got, want = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(got, want)


def test_at_the_old_policy_the_gradient_is_the_plain_one() -> None:
    log_prob = log_probs()
    loss, metrics = policy_gradient_loss(log_prob, log_prob, ADVANTAGE, 0.2, COUNTS)  # the old one is a constant
    loss.backward()
    for factor, value in log_prob.items():
        torch.testing.assert_close(value.grad, -ADVANTAGE[factor] / 4)
    assert float(metrics["approx_kl"]) == 0
    assert float(metrics["clip_ratio"]) == 0


def test_clipping_by_hand() -> None:
    """One factor of 4 decisions: the ratio is exp(change / 2); a sample has no gradient once it went far enough."""
    change = 2 * torch.tensor([[1.5, 1.5, 0.5, 0.5, 1.1]]).log()
    advantage = torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0]])
    decisions = {"subset": torch.full((1, 5), 4)}
    old = torch.full((1, 5), -6.0)
    log_prob = (old + change).requires_grad_()
    loss, metrics = policy_gradient_loss({"subset": log_prob}, {"subset": old}, {"subset": advantage}, 0.2, decisions)
    # -2 min: 1.2, -1.5, 0.5, -0.8, 1.1
    assert loss.item() == pytest.approx(-2 * (1.2 - 1.5 + 0.5 - 0.8 + 1.1) / 5, rel=1e-5)
    loss.backward()
    expected = -torch.tensor([[0.0, -1.5, 0.5, 0.0, 1.1]]) / 5  # -ratio advantage, where it is not clipped
    torch.testing.assert_close(log_prob.grad, expected)
    assert float(metrics["clip_ratio"]) == pytest.approx(2 / 5)
    assert float(metrics["approx_kl"]) == pytest.approx(float(change.square().sum()) / 2 / 20, rel=1e-5)


def test_old_policy_without_clipping_is_only_measured() -> None:
    log_prob = log_probs()
    old = {factor: value.detach() - 0.5 for factor, value in log_prob.items()}
    plain, _ = policy_gradient_loss(log_prob, None, ADVANTAGE, None, COUNTS)
    loss, metrics = policy_gradient_loss(log_prob, old, ADVANTAGE, None, COUNTS)
    assert torch.equal(loss, plain)
    assert set(metrics) == {"entropy", "approx_kl"}
    assert float(metrics["approx_kl"]) == pytest.approx(8 * 0.125 / 34)


def test_no_decisions_at_all() -> None:
    nothing = {"subset": torch.zeros(2, 1, requires_grad=True)}
    counts = {"subset": torch.zeros(2, 1, dtype=torch.int32)}
    loss, metrics = policy_gradient_loss(nothing, nothing, {"subset": torch.zeros(2, 1)}, 0.2, counts)
    assert loss.item() == 0
    assert all(float(value) == 0 for value in metrics.values())


def test_wrong_arguments() -> None:
    log_prob = log_probs()
    subset = {"subset": ADVANTAGE["subset"]}
    with pytest.raises(ValueError, match=r"advantage must have the factors \['count', 'subset'\].*got \['subset'\]"):
        policy_gradient_loss(log_prob, None, subset, None, COUNTS)
    with pytest.raises(ValueError, match="old_log_prob must have the factors"):
        policy_gradient_loss(log_prob, subset, ADVANTAGE, 0.2, COUNTS)
    with pytest.raises(ValueError, match="old_log_prob must be given with epsilon"):
        policy_gradient_loss(log_prob, None, ADVANTAGE, 0.2, COUNTS)
    for epsilon in (0.0, -0.1, math.nan):
        with pytest.raises(ValueError, match="epsilon must be above 0"):
            policy_gradient_loss(log_prob, log_prob, ADVANTAGE, epsilon, COUNTS)


@pytest.mark.parametrize(("name", "slope"), [("leave_one_out", 1.0), ("joint", 0.5)])
def test_expected_gradient_of_groups_is_that_of_the_expected_reward(name: str, slope: float) -> None:
    """Every group of two samples of bernoulli, as one video each, weighted by its probability.

    ``joint`` subtracts a mean that the sample is part of: G - 1 parts in G of the gradient.
    """
    logits = torch.tensor([0.4, -0.9, 1.3])
    outcomes = torch.tensor(list(itertools.product([False, True], repeat=3)))  # [8, 3]
    reward = torch.tensor([0.3, 1.0, -2.0, 0.5, 4.0, 0.0, -1.0, 2.5])
    pairs = torch.cartesian_prod(torch.arange(8), torch.arange(8)).T  # [2, 64]

    leaf = logits.double().requires_grad_()
    probability = torch.where(outcomes, leaf.sigmoid(), 1 - leaf.sigmoid()).prod(1)  # [8]
    (exact,) = torch.autograd.grad((probability * reward).sum(), leaf)

    videos = PackedVideos.from_frames([torch.zeros(3, 1, 1, 1)] * 64)
    mask = outcomes[pairs].reshape(2, -1)  # [2, 64 * 3]
    keep = outcomes.sum(1).int()[pairs]
    rollout = Rollout(Selection(mask.nonzero()[:, 1], keep), {"mask": mask}, {"keep": keep, "drop": 3 - keep})
    leaf = logits.clone().requires_grad_()
    sampling = SAMPLINGS["bernoulli"]
    log_prob = sampling.log_prob(leaf.repeat(64), videos, rollout)
    rewards = Rewards(reward[pairs], torch.zeros(2, 64), torch.zeros(2, 64), rollout.decisions)
    advantage = ADVANTAGES[name](rewards, 1.0, False, sampling.factors)
    weight = 64 * probability[pairs].prod(0).detach().float()  # the loss is a mean over videos
    advantage = {factor: value * weight for factor, value in advantage.items()}
    loss, _ = policy_gradient_loss(log_prob, None, advantage, None, rollout.decisions)
    (gradient,) = torch.autograd.grad(-loss, leaf)
    torch.testing.assert_close(gradient.double(), slope * exact, rtol=1e-4, atol=1e-5)
