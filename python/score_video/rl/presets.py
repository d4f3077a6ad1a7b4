"""Recipes by name: settings of a training and of its policy, each of which may be given otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PAPER_POLICY: dict[str, Any] = {
    "state": "residual",
    "first_residual": "token",
    "use_change": False,
    "use_position": False,
    "initial_retention": 0.5,
}
"""The paper's policy, of :class:`score_video.policy.SurprisePolicyConfig`: [x ; dX] with the token itself as dX in a
first frame, an MLP, a sigmoid (figure). LayerNorm of both halves, two layers of 64 and a beginning at one half are our
reading."""


def paper_training(max_steps: int) -> dict[str, Any]:
    """The paper's training, of :class:`score_video.rl.config.ScoreConfig`.

    From the figure: Bernoulli masks; the answer's cross-entropy against that of the same model on all tokens, times a
    reward for sparsity; one advantage for each sample; REINFORCE with the mean over a video's tokens, no ratio, no clip
    and no KL; top-k at inference. From the abstract: static pseudo-videos first, 10% of the tokens, a split-advantage
    estimator. Our reading: sparsity is the share that was dropped; the split is
    :func:`score_video.rl.advantages.by_baseline`; the first stage is a third of the steps; learning rate, batch and
    group are our defaults.
    """
    stages = [{"name": "pseudo_video", "steps": max_steps // 3}] if max_steps >= 3 else []
    return {
        "sampling": "bernoulli",
        "reward": "delta_ce",
        "compression_reward": "linear",
        "combination": "product",
        "advantage": "by_baseline",
        "loss_type": "mean",
        "selection": "topk",
        "eval_retention": 0.1,
        "stages": [*stages, {"name": "video"}],
    }


PRESETS: dict[str, tuple[Callable[[int], dict[str, Any]], dict[str, Any]]] = {"paper": (paper_training, PAPER_POLICY)}
"""For each name (max_steps -> settings of the training, settings of the policy)."""
