"""With what something was made: versions, the machine, and the commit of a checkout. No host names."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

_CPU_NAMES = ("model name", "Model", "Hardware", "Processor", "cpu model", "cpu")
"""What /proc/cpuinfo calls the processor, by architecture, the best first."""


def versions(*packages: str) -> dict[str, str]:
    """Versions of score-video (as ``score``), Python and other packages, by name; "?" of one that is not installed."""
    import score_ext  # here: the machine can be described without loading the ops

    found = {"score": score_ext.__version__, "python": platform.python_version()}
    return found | {package: version_of(package) for package in packages}


def version_of(package: str) -> str:
    """Of the module of that name where it is loaded, otherwise as installed, without loading it."""
    if loaded := getattr(sys.modules.get(package), "__version__", None):
        return str(loaded)
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "?"


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as the system gives it; where it gives none (many ARM machines), its architecture."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    names = (fields.get(name, "") for name in _CPU_NAMES)
    return next((name for name in names if name), platform.processor() or platform.machine() or "unknown processor")


def circumstances(*packages: str) -> dict[str, str | int]:
    """What results are kept with: ``cpu``, ``cores``, ``date`` (ISO), and :func:`versions`."""
    machine: dict[str, str | int] = {
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "date": str(datetime.date.today()),
    }
    return machine | versions(*packages)


def commit_of(folder: Path) -> str:
    """The commit that a checkout is at, 10 hexadecimal digits; "?" where there is no git or no repository."""
    return _git(folder, "rev-parse", "--short=10", "HEAD") or "?"


def uncommitted(folder: Path, paths: Sequence[str] = (".",)) -> list[str] | None:
    """Files below the given paths of a checkout that differ from its commit or are not in it (ignored ones aside).

    None where there is no git or no repository to tell.
    """
    said = _git(folder, "status", "--porcelain", "--untracked-files=all", "--", *paths)
    return None if said is None else [line[3:] for line in said.splitlines()]


def _git(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", *command], cwd=folder, text=True, capture_output=True)
    except OSError:
        return None
    return done.stdout.rstrip() if done.returncode == 0 else None
