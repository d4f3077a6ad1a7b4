"""What the runs of a comparison come to: a row for each run and task, and what is made of the rows."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from score_video.benchmarks.protocols import Protocol
from score_video.benchmarks.results import Results, TaskResults
from score_video.benchmarks.runs import FULL, Run, Settings
from score_video.provenance import versions
from score_video.statistics import needed_retention, ratio_error

PHASES = ("read", "vision tower", "compression", "prefill", "first token")
SHARE = 0.99
"""Of the full accuracy, for the retention that is needed."""


def make_report(
    runs: Sequence[Run],
    results: Mapping[Run, Results],
    errors: Mapping[Run, str],
    settings: Settings,
    protocol: Protocol | None = None,
) -> dict[str, Any]:
    """What ``report.json`` has.

    Returns:
        ``rows``, one for each run and task, those at one retention beside each other: tokens, accuracy, its difference
        from all tokens, times, and of every sample what it scored and kept. ``needed``: for each model, task and
        compressor the retention that is needed for 99% of the full accuracy, with its interval. ``means``: for each run
        its mean over the tasks in ``averaged``: those of the published figures, or all. ``published``: figures of
        others for the same protocol, with their source, or None. ``errors``, ``settings``, ``versions``.
    """
    rows: list[dict[str, Any]] = []
    needed: list[dict[str, Any]] = []
    for model in dict.fromkeys(run.model for run in runs):
        full = results.get(Run(model, FULL, None), Results({}, {})).tasks
        ordered = [run for run in runs if run.model == model and run in results]
        ordered.sort(key=lambda run: math.inf if run.retention is None else run.retention, reverse=True)
        tasks = dict.fromkeys(task for run in ordered for task in results[run].tasks)
        for task in tasks:
            here = {run: results[run].tasks[task] for run in ordered if task in results[run].tasks}
            rows += [_row(run, task, found, full.get(task)) for run, found in here.items()]
            for compressor in dict.fromkeys(run.compressor for run in here if run.retention is not None):
                same = [found for run, found in here.items() if run.compressor == compressor]
                if task in full and (least := _needed(same, full[task])) is not None:
                    needed.append({"model": model, "task": task, "compressor": compressor, **least})
    published = None if protocol is None else protocol.published
    averaged = (
        published.tasks if published is not None and set(published.tasks) <= set(settings.tasks) else settings.tasks
    )
    return {
        "rows": rows,
        "needed": needed,
        "averaged": averaged,
        "means": [mean for run in runs if run in results and (mean := _mean(run, rows, results[run], averaged))],
        "published": None if published is None else vars(published),
        "errors": [{**vars(run), "error": error} for run, error in errors.items()],
        "settings": dataclasses.asdict(settings),
        "versions": versions("torch", "transformers", "lmms_eval"),
    }


def _row(run: Run, task: str, found: TaskResults, full: TaskResults | None) -> dict[str, Any]:
    """Errors are over videos, whose questions are not independent; None for a single video."""
    samples = found.samples
    kept = [sample.kept for sample in samples.values() if sample.kept is not None]
    tokens = [sample.tokens for sample in samples.values() if sample.tokens is not None]
    row: dict[str, Any] = {**vars(run), "task": task, "metrics": dict(found.metrics), "questions": len(samples)}
    row["videos"] = len({sample.video for sample in samples.values()})
    row["kept"] = statistics.fmean(kept) if kept else None
    row["tokens"] = statistics.fmean(tokens) if tokens else None
    row["milliseconds"] = {
        phase: statistics.median(times)
        for phase in PHASES
        if (times := [sample.milliseconds[phase] for sample in samples.values() if phase in sample.milliseconds])
    }
    row |= dict.fromkeys(("accuracy", "accuracy_error", "difference", "difference_error", "share_of_full"))
    if found.scored:
        right, asked = _by_video(found, found)
        row["accuracy"] = float(right.sum() / asked.sum())
        row["accuracy_error"] = _error(right, asked)
        if run.retention is not None and full is not None and full.scored and set(full.samples) == set(samples):
            of_full, _ = _by_video(full, found)
            row["difference"] = float((right - of_full).sum() / asked.sum())
            row["difference_error"] = _error(right - of_full, asked)
            row["share_of_full"] = float(right.sum() / of_full.sum()) if of_full.sum() > 0 else None
    row["samples"] = {
        document: {"score": sample.score, "kept": sample.kept, "tokens": sample.tokens}
        for document, sample in samples.items()
    }
    return row


def _by_video(found: TaskResults, videos_of: TaskResults) -> tuple[torch.Tensor, torch.Tensor]:
    """float64 [V] each: the scores of each video's questions, summed; and how many there are. Videos are those, in
    order, that the samples of ``videos_of`` are about."""
    names = {document: sample.video for document, sample in videos_of.samples.items()}
    place = {video: number for number, video in enumerate(dict.fromkeys(names.values()))}
    scores, asked = (torch.zeros(len(place), dtype=torch.float64) for _ in range(2))
    for document, video in names.items():
        scores[place[video]] += found.samples[document].score or 0.0
        asked[place[video]] += 1
    return scores, asked


def _error(value: torch.Tensor, asked: torch.Tensor) -> float | None:
    error = ratio_error(value, asked)
    return None if math.isnan(error) else error


def _needed(tested: Sequence[TaskResults], full: TaskResults) -> dict[str, Any] | None:
    """Retentions are those that were reached, the mean over the samples; None: the log does not say them, or which
    samples are right; or nothing is right."""
    if not full.scored or not any(sample.score for sample in full.samples.values()):
        return None
    by_retention: dict[float, TaskResults] = {}
    for found in tested:
        reached = [s.kept / s.tokens for s in found.samples.values() if s.kept is not None and s.tokens]
        if not found.scored or set(found.samples) != set(full.samples) or len(reached) < len(found.samples):
            return None
        by_retention[statistics.fmean(reached)] = found
    retentions = sorted(retention for retention in by_retention if retention < 1)
    if not retentions:
        return None
    right = [[_by_video(by_retention[retention], full)[0].numpy()] for retention in retentions]
    of_full, asked = _by_video(full, full)
    return dataclasses.asdict(needed_retention(retentions, right, of_full.numpy(), asked.numpy(), SHARE))


def _mean(run: Run, rows: Sequence[Mapping[str, Any]], found: Results, tasks: Sequence[str]) -> dict[str, Any] | None:
    """The mean of the accuracies on these tasks, one of several being the mean of its own; and its share of the same on
    all tokens. None: some task has none."""

    def over(one: Run) -> float | None:
        of = {
            row["task"]: row["accuracy"] for row in rows if all(row[key] == value for key, value in vars(one).items())
        }
        means: list[float] = []
        for task in tasks:
            accuracies = [of.get(name) for name in found.groups.get(task, (task,))]
            known = [accuracy for accuracy in accuracies if accuracy is not None]
            if not known or len(known) < len(accuracies):
                return None
            means.append(statistics.fmean(known))
        return statistics.fmean(means)

    accuracy, full = over(run), over(Run(run.model, FULL, None))
    if accuracy is None:
        return None
    share = accuracy / full if full and run.retention is not None else None
    return {**vars(run), "accuracy": accuracy, "share_of_full": share}
