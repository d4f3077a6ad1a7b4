"""Checkpoints that are whole or not there, and say so when something has damaged them.

A checkpoint is written in a hidden folder beside its place, with a manifest of every file's SHA-256, forced to disk
and then renamed. So whatever moment a run is killed at, every folder ``checkpoint-N`` is complete; a file that has
been cut off, exchanged or lost since is found before anything of it is read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from score_video.errors import ScoreError
from score_video.files import sha256_of

MANIFEST = "manifest.json"
RUN = "run.json"
OPTIMIZER = "optimizer.pt"
SET_ASIDE = "set-aside-"

_PARTIAL = ".partial"
_OF_OPTIMIZERS = {"amsgrad", "betas", "dampening", "eps", "fused", "momentum", "nesterov", "weight_decay"}


def checkpoint_folder(output: Path, step: int) -> Path:
    """The place of the checkpoint after that many steps."""
    return output / f"checkpoint-{step}"


def partial_folder(output: Path, step: int) -> Path:
    """Where that checkpoint is written before it goes to its place."""
    return output / f".checkpoint-{step}{_PARTIAL}"


def checkpoints(output: Path) -> list[Path]:
    """All checkpoints of a run, oldest first; none where there is no such folder."""
    found = output.iterdir() if output.is_dir() else ()
    steps = {folder: re.fullmatch(r"checkpoint-(\d+)", folder.name) for folder in found if folder.is_dir()}
    return sorted((folder for folder, match in steps.items() if match), key=step_of)


def step_of(folder: Path) -> int:
    """How many steps were done when a checkpoint was saved."""
    return int(folder.name.removeprefix("checkpoint-"))


def remove_partial(output: Path) -> None:
    """Removes what runs that were killed had not finished writing (or deleting)."""
    for folder in output.glob(f".checkpoint-*{_PARTIAL}"):
        shutil.rmtree(folder)


def publish(partial: Path, folder: Path) -> None:
    """Completes a written checkpoint with its manifest and puts it in its place, over one that may be there."""
    files = {file.name: sha256_of(file) for file in sorted(partial.iterdir())}
    (partial / MANIFEST).write_text(json.dumps({"sha256": files}, indent=2) + "\n", encoding="utf-8")
    for path in (*partial.iterdir(), partial):
        _to_disk(path)
    if folder.exists():
        remove(folder)
    partial.rename(folder)
    _to_disk(folder.parent)


def keep_latest(output: Path, limit: int | None, best: Path | None) -> None:
    """Deletes the oldest checkpoints above the limit, never the latest one or the best."""
    if limit is None:
        return
    everything = checkpoints(output)
    removable = [folder for folder in everything[:-1] if best is None or folder.name != best.name]
    for folder in removable[: max(0, len(everything) - limit)]:
        remove(folder)


def check(folder: Path) -> None:
    """Raises ValueError, which names the file, for a checkpoint that is not as it was written."""
    if not folder.is_dir():
        raise ScoreError(f"{folder}: there is no such checkpoint")
    manifest = folder / MANIFEST
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
        names = dict(files)
    except FileNotFoundError:
        raise ScoreError(
            f"{folder}: is not a checkpoint of this trainer, or half of one: it has no {MANIFEST}"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ScoreError(f"{manifest}: is damaged; {_instead(folder)}") from None
    for name, digest in names.items():
        file = folder / name
        if not file.is_file():
            raise ScoreError(f"{file}: is missing; {_instead(folder)}")
        if sha256_of(file) != digest:
            raise ScoreError(f"{file}: is damaged (not what was written); {_instead(folder)}")


def check_run(folder: Path, run: Mapping[str, Any], renamed: Mapping[str, str] | None = None) -> None:
    """Raises ValueError if the checkpoint is of a run with other settings than ``run``.

    What only one of the two has is not compared: earlier releases wrote fewer settings down, and other releases of
    transformers have others.

    Args:
        renamed: what settings were called when the run began, and are called now.
    """
    saved = json.loads((folder / RUN).read_text(encoding="utf-8"))
    saved = {(renamed or {}).get(name, name): value for name, value in saved.items()}
    now = json.loads(json.dumps(run))  # as it would have been read
    for name in sorted(saved.keys() & now.keys()):
        if saved[name] != now[name]:
            raise ScoreError(f"{folder}: {name} must be what the run began with, {saved[name]!r}, got {now[name]!r}")


def check_optimizer(folder: Path, optimizer: torch.optim.Optimizer) -> None:
    """Raises ValueError if the checkpoint's optimiser is of another kind than ``optimizer``, or has other settings.

    Rates and whatever else changes from step to step is not compared.
    """
    file = folder / OPTIMIZER
    groups = torch.load(file, map_location="cpu", weights_only=True)["param_groups"]
    if [len(group["params"]) for group in groups] != [len(group["params"]) for group in optimizer.param_groups]:
        raise ScoreError(f"{file}: is of a policy with other parameters")
    for before, now in zip(groups, optimizer.param_groups, strict=True):
        if kinds := sorted((before.keys() ^ now.keys()) - {"initial_lr"}):
            raise ScoreError(
                f"{file}: the optimiser must be of the kind that the run began with, got {type(optimizer).__name__} "
                f"(of the two only one has {kinds[0]})"
            )
        for name in sorted(before.keys() & _OF_OPTIMIZERS):
            if _listed(before[name]) != _listed(now[name]):
                raise ScoreError(
                    f"{file}: the optimiser's {name} must be what the run began with, {before[name]!r}, "
                    f"got {now[name]!r}"
                )


def set_aside(output: Path, step: int, others: Collection[str] = ()) -> Path | None:
    """Moves what a run has made after a step out of its way, into a new folder ``set-aside-N`` beside it.

    Args:
        output: the run's folder.
        step: checkpoints after more steps than these are moved.
        others: names of files of the run that are moved with them, where they are there.

    Returns:
        the new folder; None if there was nothing to move.
    """
    # the latest first: should this be stopped, a run that is resumed finds those that are left in their order
    moved = [folder for folder in reversed(checkpoints(output)) if step_of(folder) > step]
    moved += [output / name for name in others if (output / name).exists()]
    if not moved:
        return None
    number = 1
    while (output / f"{SET_ASIDE}{number}").exists():
        number += 1
    place = output / f"{SET_ASIDE}{number}"
    place.mkdir()
    for path in moved:
        path.rename(place / path.name)
    _to_disk(place)
    _to_disk(output)
    return place


def save_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Writes what :func:`check_run` compares."""
    (folder / RUN).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")


def save_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors as safetensors."""
    # save_file of safetensors makes files that only their owner can read
    file.write_bytes(save({name: tensor.contiguous().clone() for name, tensor in tensors.items()}))


def load_tensors(file: Path, device: str) -> dict[str, Tensor]:
    """Reads what :func:`save_tensors` wrote."""
    with safe_open(file, framework="pt", device=device) as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # not a dict


def remove(folder: Path) -> None:
    """Deletes a checkpoint so that no half of it is ever to be seen under its name."""
    hidden = folder.with_name(f".{folder.name}-old{_PARTIAL}")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)


def _instead(folder: Path) -> str:
    """What to do where a checkpoint cannot be resumed from."""
    whole = [other.name for other in checkpoints(folder.parent) if step_of(other) < step_of(folder)]
    return f"resume from an older checkpoint ({', '.join(whole)})" if whole else "there is no older checkpoint"


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
