"""How a training shows that it goes on."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
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
        shown = _shown(logs)
        if self.training_bar is not None and shown:
            self.training_bar.set_postfix(shown)
        else:
            # an evaluation, or the end
            super().on_log(args, state, control, logs=logs, **kwargs)  # type: ignore[no-untyped-call]


class RewardLines(TrainerCallback):
    """A line for each time that metrics are logged, where no bar can be drawn."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        shown = _shown(logs)
        if state.is_world_process_zero and shown:
            metrics = ", ".join(f"{name} {value}" for name, value in shown.items())
            print(f"step {state.global_step} of {state.max_steps}: {metrics}", flush=True)


def _shown(logs: dict[str, float] | None) -> dict[str, str]:
    """The metrics of a training worth watching, in short; none of an evaluation's."""
    return {name: f"{logs[name]:.3f}" for name in ("reward", "accuracy", "kept_ratio") if logs and name in logs}
