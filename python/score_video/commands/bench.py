"""``score bench``: models, compressors and retentions on tasks of lmms-eval, a process each, and one table of them all.

lmms-eval's command exits with 0 after errors: a run counts if its results are there and every sample of them is.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from score_video.commands.options import check_named_once
from score_video.errors import ScoreError
from score_video.files import output_file, write_json
from score_video.provenance import versions
from score_video.statistics import ratio_error

FULL = "none"
"""The compressor of the runs on all tokens."""
PHASES = ("read", "vision tower", "compression", "prefill", "first token")


@dataclass(frozen=True)
class Settings:
    """What all runs share.

    Attributes:
        tasks: names of lmms-eval's.
        model_args: more of ``--model_args``, "max_num_frames=32,attn_implementation=sdpa".
        others: more options of lmms-eval's command.
    """

    tasks: tuple[str, ...]
    model_args: str = ""
    others: tuple[str, ...] = ()


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
        command += ["--tasks", ",".join(settings.tasks), *settings.others]
        return [*command, "--log_samples", "--output_path", str(folder)]

    def folder(self, settings: Settings, output: Path) -> Path:
        """Its own, by all that could change its results."""
        text = " ".join(self.command(settings, Path())[1:])
        name = f"{Path(self.model).name}-{self.compressor}-{'all' if self.retention is None else self.retention}"
        return output / f"{re.sub(r'[^A-Za-z0-9.-]+', '_', name)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def plan(models: Sequence[str], compressors: Sequence[str], retentions: Sequence[float]) -> list[Run]:
    """For each model all tokens, then every compressor at every retention.

    Raises:
        ScoreError: a name with a comma, which would end an argument of lmms-eval's; or one is given twice.
    """
    for what, names in (("--model", models), ("--compressor", compressors)):
        for name in names:
            if "," in name or "=" in name:
                raise ScoreError(f"{what} must have no comma and no equals sign, got {name!r}")
        check_named_once(what, "each", names)
    if FULL in compressors:
        raise ScoreError(f"--compressor must be one that compresses, got {FULL}, which is run for every model anyway")
    runs: list[Run] = []
    for model in models:
        runs += [Run(model, FULL, None), *(Run(model, name, kept) for name in compressors for kept in retentions)]
    return runs


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """What a run of lmms-eval came to, by task: ``metrics``, lmms-eval's own; ``samples``, by document.

    Raises:
        ScoreError: there are no results, or samples are missing.
    """
    found = sorted(folder.rglob("*_results.json"))
    if not found:
        raise ScoreError(f"{folder}: lmms-eval wrote no results")
    results = json.loads(found[-1].read_text(encoding="utf-8"))
    tasks: dict[str, dict[str, Any]] = {}
    for task, count in results["n-samples"].items():
        path = found[-1].with_name(found[-1].name.removesuffix("results.json") + f"samples_{task}.jsonl")
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        if len(lines) != count["effective"]:
            raise ScoreError(f"{folder}: task {task} has {len(lines)} samples of {count['effective']} in its log")
        samples = {str(sample["doc_id"]): sample for sample in map(json.loads, lines)}
        metrics = {name: value for name, value in results["results"][task].items() if isinstance(value, (int, float))}
        tasks[task] = {"metrics": metrics, "samples": samples}
    return tasks


def run_all(
    runs: Sequence[Run], settings: Settings, output: Path, say: Callable[[str], None]
) -> tuple[dict[Run, dict[str, dict[str, Any]]], dict[Run, str]]:
    """Results of each run, and the errors of those that failed. What is there already, and whole, is not run again.

    Args:
        output: a folder; each run has one in it, with lmms-eval's own output in ``log.txt``.
        say: told a line before each run and after one that fails.
    """
    results: dict[Run, dict[str, dict[str, Any]]] = {}
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
            errors[run] = f"{error}; see {folder / 'log.txt'}"
            say(f"{name}: {errors[run]}")
    return results, errors


def make_report(
    runs: Sequence[Run], results: dict[Run, dict[str, dict[str, Any]]], errors: dict[Run, str], settings: Settings
) -> dict[str, Any]:
    """``rows``, one for each run and task; ``errors``; ``settings``; ``versions``."""
    rows: list[dict[str, Any]] = []
    for run in runs:
        full = results.get(Run(run.model, FULL, None), {})
        rows += [_row(run, task, found, full.get(task)) for task, found in results.get(run, {}).items()]
    return {
        "rows": rows,
        "errors": [{**vars(run), "error": error} for run, error in errors.items()],
        "settings": vars(settings),
        "versions": versions("torch", "transformers", "lmms_eval"),
    }


def _row(run: Run, task: str, found: dict[str, Any], full: dict[str, Any] | None) -> dict[str, Any]:
    """``accuracy`` of the samples, and ``difference`` from all tokens, sample by sample, with its standard error; None
    where the task's log does not say which samples are right."""
    scores = _scores(found)
    records = [sample["token_counts"][0]["score"] for sample in found["samples"].values() if sample["token_counts"][0]]
    counted = [record for record in records if "kept" in record]
    row: dict[str, Any] = {**vars(run), "task": task, "metrics": found["metrics"], "samples": len(found["samples"])}
    row["kept"] = statistics.fmean(record["kept"] for record in counted) if counted else None
    row["tokens"] = statistics.fmean(record["tokens"] for record in counted) if counted else None
    row["milliseconds"] = {
        phase: statistics.median(times)
        for phase in PHASES
        if (times := [record["milliseconds"][phase] for record in records if phase in record["milliseconds"]])
    }
    row["accuracy"] = statistics.fmean(scores.values()) if scores else None
    row |= {"difference": None, "difference_error": None, "share_of_full": None}
    base = _scores(full) if full is not None else {}
    if scores and set(base) == set(scores) and run.retention is not None:
        differences = torch.tensor([scores[document] - base[document] for document in scores], dtype=torch.float64)
        row["difference"] = float(differences.mean())
        if len(scores) > 1:
            row["difference_error"] = ratio_error(differences, torch.ones_like(differences))
        if (whole := statistics.fmean(base.values())) > 0:
            row["share_of_full"] = row["accuracy"] / whole
    return row


def _scores(found: dict[str, Any]) -> dict[str, float]:
    """Of each document, 0 to 1: the first of the task's metrics that is a number in the log, or an answer beside the
    right one. Empty: there is none."""
    names = dict.fromkeys(name.partition(",")[0] for name in found["metrics"])
    for name in names:
        values = {document: _score(sample.get(name)) for document, sample in found["samples"].items()}
        scores = {document: value for document, value in values.items() if value is not None}
        if scores and len(scores) == len(values):
            return scores
    return {}


def _score(value: Any) -> float | None:
    if isinstance(value, (bool, int, float)):
        return float(value)
    if isinstance(value, dict) and "pred_answer" in value and "answer" in value:
        return float(value["pred_answer"] == value["answer"])
    return None


def markdown(report: dict[str, Any]) -> str:
    """The report's rows as a table, accuracies in %, times in ms (medians of samples); then its errors."""
    heads = ["model", "task", "compressor", "kept", "tokens", "accuracy", "to all tokens", "of full", *PHASES]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in report["rows"]:
        whole = row["retention"] is None
        cells = [Path(row["model"]).name, row["task"], "all tokens" if whole else row["compressor"]]
        cells += ["all" if whole else f"{100 * row['retention']:g}%", _number(row["kept"], ".0f")]
        cells += [_number(row["accuracy"], ".1f", 100), _number(row["difference"], "+.1f", 100)]
        if row["difference_error"] is not None:
            cells[-1] += f" ± {100 * row['difference_error']:.1f}"
        cells += [_number(row["share_of_full"], ".1f", 100)]
        cells += [_number(row["milliseconds"].get(phase), ".1f") for phase in PHASES]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [f"\nFailed: {error['error']}" for error in report["errors"]]
    return "\n".join([*lines, "", f"Versions: {report['versions']}", ""])


def _number(value: float | None, form: str, scale: float = 1.0) -> str:
    return "" if value is None else f"{scale * value:{form}}"


def bench(runs: Sequence[Run], settings: Settings, output: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Runs what is not there yet, and writes ``report.json`` and ``report.md`` into the folder.

    Raises:
        ScoreError: lmms-eval is not installed.
    """
    from importlib.util import find_spec

    if find_spec("lmms_eval") is None:
        raise ScoreError('score bench needs lmms-eval: pip install "score-video[eval]"')
    results, errors = run_all(runs, settings, output, say)
    report = make_report(runs, results, errors, settings)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "report.json", report)
    with output_file(output / "report.md") as temporary:
        temporary.write_text(markdown(report), encoding="utf-8")
    return report


def dry_run(runs: Sequence[Run], settings: Settings, output: Path) -> str:
    """The commands, a line each."""
    return "\n".join(shlex.join(run.command(settings, run.folder(settings, output))) for run in runs)
