"""A training on the CPU of which nothing is kept but the policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any

from transformers.trainer_callback import PrinterCallback

from score_video.policy import SurprisePolicy
from score_video.rl.config import ScoreConfig
from score_video.rl.curriculum import Examples
from score_video.rl.environment import Environment
from score_video.rl.trainer import ScoreTrainer


def train_unsaved(
    policy: SurprisePolicy,
    environment: Environment,
    examples: Examples | Mapping[str, Examples],
    callbacks: Sequence[Any] = (),
    **settings: Any,
) -> list[dict[str, float]]:
    """Trains a policy in place, quietly, and writes nothing.

    Args:
        policy: frozen and in evaluation mode afterwards.
        environment, examples, callbacks: as :class:`~score_video.rl.trainer.ScoreTrainer` takes them.
        settings: of :class:`~score_video.rl.config.ScoreConfig`.

    Returns:
        The lines that were logged of rewards.
    """
    with TemporaryDirectory() as scratch:  # stays empty
        quiet: dict[str, Any] = {"disable_tqdm": True, "report_to": "none", "save_strategy": "no", "use_cpu": True}
        config = ScoreConfig(output_dir=scratch, **(quiet | settings))
        trainer = ScoreTrainer(policy, environment, config, examples, callbacks=list(callbacks))
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    policy.eval().requires_grad_(False)
    return [line for line in trainer.state.log_history if "reward" in line]
