"""Checkpoints that are whole or not there, and say so when something has damaged them.

A checkpoint is written in a hidden folder beside its place, with a manifest of every file's SHA-256, forced to disk
and then renamed. So whatever moment a run is killed at, every folder ``checkpoint-N`` is complete; a file that has
been cut off, exchanged or lost since is found before anything of it is read.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

MANIFEST = "manifest.json"
RUN = "run.json"

_PARTIAL = ".partial"


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
    return sorted((folder for folder, match in steps.items() if match), key=lambda folder: int(folder.name[11:]))


def remove_partial(output: Path) -> None:
    """Removes what runs that were killed had not finished writing (or deleting)."""
    for folder in output.glob(f".checkpoint-*{_PARTIAL}"):
        shutil.rmtree(folder)


def publish(partial: Path, folder: Path) -> None:
    """Completes a written checkpoint with its manifest and puts it in its place, over one that may be there."""
    files = {file.name: _digest(file) for file in sorted(partial.iterdir())}
    (partial / MANIFEST).write_text(json.dumps({"sha256": files}, indent=2) + "\n", encoding="utf-8")
    for path in (*partial.iterdir(), partial):
        _to_disk(path)
    if folder.exists():
        _remove(folder)
    partial.rename(folder)
    _to_disk(folder.parent)


def keep_latest(output: Path, limit: int | None, best: Path | None) -> None:
    """Deletes the oldest checkpoints above the limit, never the latest one or the best."""
    if limit is None:
        return
    everything = checkpoints(output)
    removable = [folder for folder in everything[:-1] if best is None or folder.name != best.name]
    for folder in removable[: max(0, len(everything) - limit)]:
        _remove(folder)


def check(folder: Path) -> None:
    """Raises ValueError, which names the file, for a checkpoint that is not as it was written."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such checkpoint")
    manifest = folder / MANIFEST
    try:
        files = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
        names = dict(files)
    except FileNotFoundError:
        raise ValueError(
            f"{folder}: is not a checkpoint of this trainer, or half of one: it has no {MANIFEST}"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{manifest}: is damaged; resume from an older checkpoint") from None
    for name, digest in names.items():
        file = folder / name
        if not file.is_file():
            raise ValueError(f"{file}: is missing; resume from an older checkpoint")
        if _digest(file) != digest:
            raise ValueError(f"{file}: is damaged (not what was written); resume from an older checkpoint")


def check_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Raises ValueError if the checkpoint is of a run with other settings than ``run``."""
    saved = json.loads((folder / RUN).read_text(encoding="utf-8"))
    now = json.loads(json.dumps(run))  # as it would have been read
    for name in sorted({*saved, *now}):
        if saved.get(name) != now.get(name):
            raise ValueError(
                f"{folder}: {name} must be what the run began with, {saved.get(name)!r}, got {now.get(name)!r}"
            )


def save_run(folder: Path, run: Mapping[str, Any]) -> None:
    """Writes what :func:`check_run` compares."""
    (folder / RUN).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")


def save_tensors(file: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes tensors as safetensors."""
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, file)


def load_tensors(file: Path, device: str) -> dict[str, Tensor]:
    """Reads what :func:`save_tensors` wrote."""
    with safe_open(file, framework="pt", device=device) as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # not a dict


def _remove(folder: Path) -> None:
    """Deletes a checkpoint so that no half of it is ever to be seen under its name."""
    hidden = folder.with_name(f".{folder.name}-old{_PARTIAL}")
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)


def _digest(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
