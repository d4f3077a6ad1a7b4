"""The progress bar of a training."""

from __future__ import annotations

from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ProgressCallback


class RewardBar(ProgressCallback):
    """Trainer's bar with the latest metrics in it, in place of a line above it for each."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        shown = {name: (logs or {})[name] for name in ("reward", "accuracy", "kept_ratio") if name in (logs or {})}
        if self.training_bar is not None and shown:
            self.training_bar.set_postfix({name: f"{value:.3f}" for name, value in shown.items()})
        else:
            # an evaluation, or the end
            super().on_log(args, state, control, logs=logs, **kwargs)  # type: ignore[no-untyped-call]
