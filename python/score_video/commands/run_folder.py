"""The folder of a training: looked at before anything is done, and changed only once the run has done its first step.

So a command that is refused, or a run that fails before it has done anything, leaves the folder byte for byte as it
was, and none behind where there was none.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from score_video.commands.train_config import FILE, make_training, read_config, write_config
from score_video.errors import ScoreError
from score_video.files import check_folder_to_write, write_errors
from score_video.rl import checkpoint
from score_video.rl.config import ScoreConfig
from score_video.rl.run_settings import decisive

STATE = "trainer_state.json"
POLICY = ("config.json", "model.safetensors", STATE)
"""What a run leaves at its end: a compressor, and every line of metrics. A folder with the last is of a run that is
finished, its evaluation too."""

RESULTS = (*POLICY, FILE)

_OF_A_RUN = ("checkpoint-", ".checkpoint-", f".{FILE}-", ".result-", checkpoint.SET_ASIDE)
LOGS = "runs"
"""Where TensorBoard's files are."""


class RunFolder:
    """A folder of a run, in which nothing changes before :meth:`begin`; a context that undoes what others do till then.

    Args:
        folder: path of the run's folder, whether it is there or not.
        config: the run's, all sections; what goes into ``train_config.yaml`` with ``training``.
        training: the settings.
        resume: go on from the latest checkpoint, or from the beginning where there is none.
        resume_from: the name of an older checkpoint to go on from, or its step; goes before ``resume``.
        overwrite: replace an earlier run.

    Attributes:
        checkpoint: where the run goes on from; None: from the beginning.
        begun: whether the folder has become this run's.
        set_aside: where :meth:`begin` has put what was made after that checkpoint; None if there was nothing.

    Raises:
        ValueError: there is nothing to resume, the run that is there is another one, or its checkpoint is damaged.
        OSError: the folder is in the way, or may not be written.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        training: ScoreConfig,
        *,
        resume: bool = False,
        resume_from: str | None = None,
        overwrite: bool = False,
    ) -> None:
        self.folder, self._config, self._training = folder, config, training
        self.begun = False
        self.set_aside: Path | None = None
        self.checkpoint: Path | None = None
        self._resume, self._go_back = resume, resume_from is not None
        check_folder_to_write(folder)
        self._present = set(folder.rglob("*")) if folder.is_dir() else set()
        # what does not exist yet, from the folder upwards
        self._missing = [path for path in (folder, *folder.parents) if not path.exists()]
        names = sorted({path.relative_to(folder).parts[0] for path in self._present})
        self._replaced: list[str] = []
        if resume or resume_from is not None:
            _check_same_run(folder, names, config)
            found = checkpoint.checkpoints(folder)
            self.checkpoint = _find(folder, resume_from) if resume_from is not None else found[-1] if found else None
            if self.checkpoint is not None:
                checkpoint.check(self.checkpoint)
        elif names:
            _check_replaceable(folder, names, overwrite)
            self._replaced = names

    def finished_steps(self) -> int:
        """How many steps the run has done that is to be resumed, if it was finished and is asked for no more; else 0.

        A run whose settings are not those that it began with is not finished: that is for the trainer to refuse.
        """
        if self._go_back or not self._resume or not all((self.folder / name).is_file() for name in RESULTS):
            return 0
        try:
            steps = int(json.loads((self.folder / STATE).read_text(encoding="utf-8"))["global_step"])
        except (ValueError, TypeError, KeyError):  # it is damaged: the checkpoint has it too
            return 0
        before = make_training({**read_config(self.folder / FILE)["training"], "output_dir": str(self.folder)})
        same = decisive(before) == decisive(self._training)
        return steps if same and steps >= self._training.max_steps else 0

    def begin(self) -> None:
        """Writes the configuration, when what is to be replaced or set aside has gone; once. Raises OSError."""
        if self.begun or not self._training.should_save:
            return
        with write_errors(self.folder, self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if self._go_back and self.checkpoint is not None:
                self.set_aside = checkpoint.set_aside(self.folder, checkpoint.step_of(self.checkpoint), POLICY)
                if self.set_aside is not None and (self.folder / FILE).is_file():
                    shutil.copy2(self.folder / FILE, self.set_aside)
            self._remove_replaced()
            write_config(self.folder, self._config, self._training)
        self.begun = True

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None and self._training.should_save and not self.begun:
            made = set(self.folder.rglob("*")) - self._present
            for path in (*sorted(made, reverse=True), *self._missing):
                _remove(path)

    def _remove_replaced(self) -> None:
        for name in self._replaced:
            if (self.folder / name) in checkpoint.checkpoints(self.folder):
                checkpoint.remove(self.folder / name)
        # what Trainer and its reporters have made since is this run's
        for path in sorted(self._present, reverse=True):
            if path.relative_to(self.folder).parts[0] in self._replaced and path != self.folder / FILE:
                _remove(path)


class BeginAfterFirstStep(TrainerCallback):
    """Makes a folder its run's as soon as the run has done something."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._run.begin()


def _find(folder: Path, name: str) -> Path:
    """A checkpoint of the run by its name or its step."""
    for found in checkpoint.checkpoints(folder):
        if name.rstrip("/") in (found.name, str(checkpoint.step_of(found)), str(found)):
            return found
    there = ", ".join(found.name for found in checkpoint.checkpoints(folder)) or "none"
    raise ScoreError(f"{folder}: there is no checkpoint {name!r}; there are {there}")


def _check_same_run(folder: Path, names: Sequence[str], config: Mapping[str, Any]) -> None:
    if FILE not in names:
        if foreign := [name for name in names if not _is_of_a_run(name)]:
            raise ScoreError(f"{folder}: is no run to resume: it has no {FILE}, but {foreign[0]}")
        return
    before = read_config(folder / FILE)
    for key in ("environment", "environment_options", "data", "policy"):
        if before[key] != config[key]:
            raise ScoreError(f"{folder}: {key} must be what the run began with, {before[key]}, got {config[key]}")


def _check_replaceable(folder: Path, names: Sequence[str], overwrite: bool) -> None:
    if foreign := [name for name in names if not _is_of_a_run(name)]:  # said first: --overwrite would not help
        raise FileExistsError(
            17, f"is not empty: holds files that are not from here ({foreign[0]}), and is not overwritten", str(folder)
        )
    if not overwrite:
        goes_on = "--resume goes on with it, " if FILE in names else ""
        raise FileExistsError(17, f"exists and is not empty ({goes_on}--overwrite replaces it)", str(folder))


def _is_of_a_run(name: str) -> bool:
    return name in (*RESULTS, LOGS) or name.startswith(_OF_A_RUN)


def _remove(path: Path) -> None:
    """A file, or a folder in which there is nothing; what is in use, or gone already, is let be."""
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def save_result(trainer: Any, folder: Path, *, finished: bool) -> None:
    """The compressor and, of a run that is finished, the trainer's state: each file put in its place when all are
    whole. Raises OSError."""
    partial = folder / f".result-{os.getpid()}"
    try:
        with write_errors(folder, partial):
            partial.mkdir(exist_ok=True)
            trainer.compressor().write(partial)
            if finished:
                trainer.state.save_to_json(str(partial / STATE))
            else:
                (folder / STATE).unlink(missing_ok=True)  # of a shorter run that this one goes on from
            for file in partial.iterdir():
                file.replace(folder / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
