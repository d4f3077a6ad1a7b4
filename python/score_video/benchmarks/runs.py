"""The runs of lmms-eval that a comparison is made of, a process each; what is there already is not run again."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from score_video.benchmarks.results import Results, read_results
from score_video.errors import ScoreError
from score_video.rl.registry import search_current_folder

FULL = "none"
"""The compressor of the runs on all tokens."""


_ERROR = re.compile(r"Error during evaluation: (.+?)(?:\. Please set `--verbosity|$)", re.MULTILINE)


@dataclass(frozen=True)
class Settings:
    """What all runs share.

    Attributes:
        tasks: names of lmms-eval's.
        model_args: more of ``--model_args``, "max_num_frames=32,attn_implementation=sdpa".
        batch_size: prompts at a time.
        limit: questions of each task; None: all.
        include_path: a folder with tasks of the user's own, or None.
    """

    tasks: tuple[str, ...]
    model_args: str = ""
    batch_size: int = 1
    limit: int | None = None
    include_path: str | None = None


@dataclass(frozen=True)
class Run:
    """One run of lmms-eval. ``retention`` is None for all tokens."""

    model: str
    compressor: str
    retention: float | None

    def command(self, settings: Settings, folder: Path) -> list[str]:
        """The process that writes its results and its log of samples into a folder."""
        arguments = f"pretrained={self.model},compressor={self.compressor}"
        arguments += "" if self.retention is None else f",retention={self.retention!r}"
        arguments += f",{settings.model_args}" if settings.model_args else ""
        command = [sys.executable, "-m", "lmms_eval", "--model", "score", "--model_args", arguments]
        command += ["--tasks", ",".join(settings.tasks), "--batch_size", str(settings.batch_size)]
        command += [] if settings.limit is None else ["--limit", str(settings.limit)]
        command += [] if settings.include_path is None else ["--include_path", settings.include_path]
        return [*command, "--log_samples", "--output_path", str(folder)]

    def folder(self, settings: Settings, output: Path) -> Path:
        """Its own, by all that could change its results: settings, and the files of what is named by a path."""
        text = " ".join([*self.command(settings, Path())[1:], *_files(self.model), *_files(self.compressor)])
        name = f"{Path(self.model).name}-{self.compressor}-{'all' if self.retention is None else self.retention}"
        return output / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _files(name: str) -> list[str]:
    """What tells a saved model or compressor, or a module of rules, from what was there under its name before;
    nothing for what is on the hub or comes with the package."""
    files = [*Path(name).glob("*.json"), *Path(name).glob("*.safetensors")] if Path(name).is_dir() else []
    if ":" in name:
        search_current_folder()
        with suppress(ImportError, ValueError):  # which the run will say
            spec = find_spec(name.partition(":")[0])
            files += [Path(spec.origin)] if spec is not None and spec.has_location and spec.origin else []
    states = ((file.name, file.stat()) for file in sorted(files))
    return [f"{file} {state.st_size} {state.st_mtime_ns}" for file, state in states]


def plan(models: Sequence[str], compressors: Sequence[str], retentions: Sequence[float]) -> list[Run]:
    """For each model all tokens, then every compressor at every retention.

    Raises:
        ScoreError: a name with a comma, which would end an argument of lmms-eval's; or one is given twice.
    """
    for what, names in (("model", models), ("compressor", compressors)):
        for name in names:
            if "," in name or "=" in name:
                raise ScoreError(f"{what} must have no comma and no equals sign, got {name!r}")
            if names.count(name) > 1:
                raise ScoreError(f"{what} must name each once, got {name} twice")
    if FULL in compressors:
        raise ScoreError(f"compressor must be one that compresses, got {FULL}, which is run for every model anyway")
    runs: list[Run] = []
    for model in models:
        runs += [Run(model, FULL, None), *(Run(model, name, kept) for name in compressors for kept in retentions)]
    return runs


def run_all(
    runs: Sequence[Run], settings: Settings, output: Path, say: Callable[[str], None]
) -> tuple[dict[Run, Results], dict[Run, str]]:
    """Results of each run, and the errors of those that failed. What is there already, and whole, is not run again.

    Args:
        output: a folder; each run has one in it, with lmms-eval's own output in ``log.txt``.
        say: told a line before each run and after one that fails.
    """
    results: dict[Run, Results] = {}
    errors: dict[Run, str] = {}
    for number, run in enumerate(runs, 1):
        folder = run.folder(settings, output)
        name = f"{number}/{len(runs)} {folder.name}"
        try:
            results[run] = read_results(folder)
            say(f"{name}: is there")
            continue
        except ScoreError:
            shutil.rmtree(folder, ignore_errors=True)
        say(name)
        folder.mkdir(parents=True)
        with (folder / "log.txt").open("w", encoding="utf-8") as log:
            subprocess.run(run.command(settings, folder), stdout=log, stderr=subprocess.STDOUT, check=False)
        try:
            results[run] = read_results(folder)
        except ScoreError as error:
            errors[run] = f"{error}{_reason(folder / 'log.txt')}; see {folder / 'log.txt'}"
            say(f"{name}: {errors[run]}")
    return results, errors


def _reason(log: Path) -> str:
    """What lmms-eval's output says that ended the run, in brackets; nothing where it does not say."""
    found = _ERROR.findall(log.read_text(encoding="utf-8", errors="replace"))
    return f" ({found[-1][:300]})" if found else ""
