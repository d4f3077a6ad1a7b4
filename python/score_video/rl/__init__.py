"""Group-wise reinforcement learning of a policy: sampling laws, rewards, advantages, the loss, and the environment.

Everything here needs torch alone; the trainer, which builds on transformers, is ``score_video.rl.trainer``.
"""

from score_video.rl.advantages import ADVANTAGES, Advantage, Rewards
from score_video.rl.environment import EncodedBatch, Environment, Example, Outcome, Selection
from score_video.rl.laws import LAWS, Law, Rollout
from score_video.rl.objective import policy_gradient_loss
from score_video.rl.registry import find
from score_video.rl.rewards import (
    COMPRESSIONS,
    REWARDS,
    CompressionReward,
    TaskReward,
    check_finite,
    kept_ratio,
    needs_divergence,
)

__all__ = [
    "ADVANTAGES",
    "COMPRESSIONS",
    "LAWS",
    "REWARDS",
    "Advantage",
    "CompressionReward",
    "EncodedBatch",
    "Environment",
    "Example",
    "Law",
    "Outcome",
    "Rewards",
    "Rollout",
    "Selection",
    "TaskReward",
    "check_finite",
    "find",
    "kept_ratio",
    "needs_divergence",
    "policy_gradient_loss",
]
