"""Group-wise reinforcement learning of a policy: sampling, rewards, advantages, the loss, and the environment.

Everything here needs torch alone but the trainer, its configuration and the reading of data sets, which build on
transformers and datasets and are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from score_video.renamed import warn
from score_video.rl.advantages import ADVANTAGES, Advantage, Rewards
from score_video.rl.environment import EncodedBatch, Environment, Example, Outcome, Selection
from score_video.rl.objective import policy_gradient_loss
from score_video.rl.registry import find
from score_video.rl.rewards import (
    COMBINATIONS,
    COMPRESSIONS,
    REWARDS,
    Combination,
    CompressionReward,
    TaskReward,
    check_finite,
    kept_ratio,
)
from score_video.rl.sampling import SAMPLINGS, Rollout, Sampling

if TYPE_CHECKING:
    from score_video.rl.config import ScoreConfig
    from score_video.rl.data import load_examples
    from score_video.rl.trainer import ScoreTrainer

__all__ = [
    "ADVANTAGES",
    "COMBINATIONS",
    "COMPRESSIONS",
    "REWARDS",
    "SAMPLINGS",
    "Advantage",
    "Combination",
    "CompressionReward",
    "EncodedBatch",
    "Environment",
    "Example",
    "Outcome",
    "Rewards",
    "Rollout",
    "Sampling",
    "ScoreConfig",
    "ScoreTrainer",
    "Selection",
    "TaskReward",
    "check_finite",
    "find",
    "kept_ratio",
    "load_examples",
    "policy_gradient_loss",
]

_MODULE_OF = {"ScoreConfig": "config", "ScoreTrainer": "trainer", "load_examples": "data"}
_RENAMED = {"LAWS": "SAMPLINGS", "Law": "Sampling"}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        warn(f"{__name__}.{name} is now called {_RENAMED[name]}", up=1)
        return globals()[_RENAMED[name]]
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
