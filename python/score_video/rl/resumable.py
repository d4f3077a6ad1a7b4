"""A Trainer whose runs can be killed at any moment and resumed: its checkpoints are whole, checked, and of one run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from score_video.errors import ScoreError
from score_video.files import write_errors
from score_video.policy import SurprisePolicy
from score_video.rl import checkpoint


class ResumableTrainer(Trainer):
    """Trainer with the checkpoints of :mod:`score_video.rl.checkpoint`.

    The model's weights are safetensors; the states of optimiser, scheduler and random number generators are torch
    files, which Trainer loads with ``weights_only``.

    Attributes:
        replaces_checkpoints: whether earlier ones in ``args.output_dir`` are nothing to :meth:`train` without
            ``resume_from_checkpoint``: somebody else sees to them before the first is saved.
    """

    model: SurprisePolicy
    replaces_checkpoints = False
    renamed_settings: Mapping[str, str] = {}
    """What settings were called in earlier releases, and are called now."""

    _newer_than: int | None = None  # the step that was resumed from, until the first checkpoint after it

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.add_callback(_OwnIntervals)

    def settings_of_run(self) -> dict[str, Any]:
        """What must not change between a checkpoint and the run that goes on from it; as JSON can hold it."""
        return {}

    def save_more(self, folder: Path) -> None:
        """Writes what the next step needs beyond what every Trainer saves; in every process."""

    def load_more(self, folder: Path) -> None:
        """Takes it up again, before the first step after a checkpoint; in every process."""

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Trains to ``args.max_steps``.

        Args:
            resume_from_checkpoint: a checkpoint's folder; True: the latest in ``args.output_dir``; None or False: from
                the beginning. Where there are later ones in ``args.output_dir`` than the one that is named, they are
                moved into ``set-aside-1`` (or 2, ...) there, as soon as this run saves one.
            trial, ignore_keys_for_eval: Trainer's own.

        Raises:
            ValueError: there is no checkpoint to resume from, it is damaged, or of a run with other settings; or there
                are checkpoints and nothing was said of resuming.
        """
        output = self._output()
        found = checkpoint.checkpoints(output)
        self._newer_than = None
        if not resume_from_checkpoint:
            if found and self.args.save_strategy != "no" and not self.replaces_checkpoints:
                raise ScoreError(
                    f"{output}: holds checkpoints of an earlier run ({found[-1].name}); resume from them, or take"
                    " another output_dir"
                )
            return super().train(None, trial, ignore_keys_for_eval)
        if resume_from_checkpoint is True and not found:
            raise ScoreError(f"{output}: has no checkpoint to resume from")
        folder = found[-1] if resume_from_checkpoint is True else Path(resume_from_checkpoint)
        checkpoint.check(folder)
        checkpoint.check_run(folder, self.settings_of_run(), self.renamed_settings)
        checkpoint.check_optimizer(folder, self.create_optimizer())
        self.load_more(folder)
        if folder.resolve().parent == output.resolve():
            self._newer_than = checkpoint.step_of(folder)
        return super().train(str(folder), trial, ignore_keys_for_eval)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Trainer's own, whose errors are about the settings. Raises ValueError."""
        with _settings_errors(self.args, "optim", "optim_args"):
            made: torch.optim.Optimizer = super().create_optimizer(model)
        return made

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Trainer's own, whose errors are about the settings. Raises ValueError."""
        with _settings_errors(self.args, "lr_scheduler_type", "lr_scheduler_kwargs"):
            return super().create_scheduler(num_training_steps, optimizer)

    def _load_optimizer_and_scheduler(self, checkpoint: Any) -> None:
        """Trainer's own; but the next step's rate is that of a run of this length, not a shorter one's last."""
        super()._load_optimizer_and_scheduler(checkpoint)
        scheduler = self.lr_scheduler
        if checkpoint is not None and isinstance(scheduler, LambdaLR):
            pairs = zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
            rates = [base * factor(scheduler.last_epoch) for base, factor in pairs]
            for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            scheduler._last_lr = rates

    def _output(self) -> Path:
        return Path(str(self.args.output_dir))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """All of a checkpoint or nothing: what could not be written whole is removed, and the error says why."""
        output, step = self._output(), self.state.global_step
        partial, folder = checkpoint.partial_folder(output, step), checkpoint.checkpoint_folder(output, step)
        try:
            with write_errors(folder, partial):
                self._write_checkpoint(partial, folder)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            whole = checkpoint.checkpoints(output)
            kept = f"; {whole[-1].name} is whole, and the run can be resumed from it" if whole else ""
            raise OSError(error.errno, f"{error.strerror}{kept}", str(folder)) from error

    def _write_checkpoint(self, partial: Path, folder: Path) -> None:
        output, main = self._output(), self.args.should_save
        if main:
            if self._newer_than is not None:  # from here on this run's checkpoints are the latest
                checkpoint.set_aside(output, self._newer_than)
            checkpoint.remove_partial(output)
            partial.mkdir(parents=True)
        self._newer_than = None
        self.accelerator.wait_for_everyone()
        self.save_model(str(partial), _internal_call=True)
        self._save_optimizer_and_scheduler(str(partial))
        self._save_scaler(str(partial))
        self._save_rng_state(str(partial))
        self.save_more(partial)
        if main:
            if self.state.best_global_step:
                best = checkpoint.checkpoint_folder(output, self.state.best_global_step)
                self.state.best_model_checkpoint = str(best)
            self.state.stateful_callbacks = self._states_of_callbacks()
            self.state.save_to_json(str(partial / "trainer_state.json"))
            checkpoint.save_run(partial, self.settings_of_run())
        self.accelerator.wait_for_everyone()
        if main:
            checkpoint.publish(partial, folder)
            kept = self.state.best_model_checkpoint
            checkpoint.keep_latest(output, self.args.save_total_limit, None if kept is None else Path(kept))
        self.accelerator.wait_for_everyone()

    def _states_of_callbacks(self) -> Any:
        """By class name, as Trainer reads them: a state, or a list of those of several callbacks of one class."""
        states: dict[str, Any] = {}
        for callback in (*self.callback_handler.callbacks, self.control):
            if isinstance(callback, ExportableState):
                states.setdefault(type(callback).__name__, []).append(callback.state())
        return {name: several if len(several) > 1 else several[0] for name, several in states.items()}

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """The model alone, its config and weights: Trainer would add its arguments as a pickle."""
        if self.args.should_save:
            with _no_progress_bars():
                self.model.save_pretrained(output_dir or self._output(), state_dict=state_dict)


class _OwnIntervals(TrainerCallback):
    """A run that goes on logs, evaluates and saves as often as it is told, not as often as it was told at first."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        state.compute_steps(args, state.max_steps)  # type: ignore[no-untyped-call]


@contextmanager
def _settings_errors(args: TrainingArguments, *names: str) -> Iterator[None]:
    """What a library raises where nothing but settings can be wrong, as a ValueError that names them."""
    try:
        yield
    except (ArithmeticError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        values = {name: getattr(args, name) for name in names if getattr(args, name)}
        given = " and ".join(f"{name} {getattr(value, 'value', value)!r}" for name, value in values.items())
        raise ScoreError(f"{given} cannot be used: {' '.join(str(error).split())}") from error


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """transformers draws one for writing a file, over that of the training."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
