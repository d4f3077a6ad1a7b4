"""Reads what lmms-eval wrote. Its command exits with 0 after errors: a run counts if its results are there and every
sample of them is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from score_video.errors import ScoreError

_VIDEOS = ("videoID", "video_id", "video_name", "video_idx", "video_uid", "video_path", "video")
"""What tasks call the video of a question, where they do not say so (``cluster_key``)."""
_ANSWERS = ("pred_answer", "parsed_pred", "pred")
_TRUTHS = ("gt_answer", "answer", "ground_truth")


@dataclass(frozen=True)
class Sample:
    """A question that was answered.

    Attributes:
        score: 0 to 1; None: the log does not say.
        video: which video it is about.
        kept, tokens: how many its videos kept and had; None where nothing compressed.
        milliseconds: how long each phase took of the batch that it was in.
    """

    score: float | None
    video: str
    kept: int | None
    tokens: int | None
    milliseconds: Mapping[str, float]


@dataclass(frozen=True)
class TaskResults:
    """Of one task: lmms-eval's own ``metrics``, and ``samples`` by document."""

    metrics: Mapping[str, float]
    samples: Mapping[str, Sample]

    @property
    def scored(self) -> bool:
        """Whether the log says of every sample how right it is."""
        return all(sample.score is not None for sample in self.samples.values())


@dataclass(frozen=True)
class Results:
    """Of one run: ``tasks`` by name; ``groups``, the tasks of those that are made of several."""

    tasks: Mapping[str, TaskResults]
    groups: Mapping[str, tuple[str, ...]]


def read_results(folder: Path) -> Results:
    """What a run of lmms-eval came to.

    Raises:
        ScoreError: there are no results, they are half written, or samples are missing.
    """
    found = sorted(folder.rglob("*_results.json"))
    if not found:
        raise ScoreError(f"{folder}: lmms-eval wrote no results")
    try:
        results = json.loads(found[-1].read_text(encoding="utf-8"))
        if not results["n-samples"]:
            raise ScoreError(f"{found[-1]}: lmms-eval wrote results of no task")
        groups = {name: tuple(tasks) for name, tasks in results.get("group_subtasks", {}).items() if tasks}
        return Results({task: _task(found[-1], results, task) for task in results["n-samples"]}, groups)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        if isinstance(error, ScoreError):
            raise
        raise ScoreError(f"{folder}: lmms-eval's results are not whole ({type(error).__name__}: {error})") from None


def _task(file: Path, results: Mapping[str, Any], task: str) -> TaskResults:
    path = file.with_name(file.name.removesuffix("results.json") + f"samples_{task}.jsonl")
    logged = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    count = results["n-samples"][task]["effective"]
    if len(logged) != count:
        raise ScoreError(f"{path}: has {len(logged)} samples of {count}")
    metrics = {name: value for name, value in results["results"][task].items() if isinstance(value, (int, float))}
    names = dict.fromkeys(name.partition(",")[0] for name in metrics)
    scored = next((name for name in names if all(_score(sample.get(name)) is not None for sample in logged)), None)
    key = results.get("configs", {}).get(task, {}).get("cluster_key")
    return TaskResults(metrics, {str(sample["doc_id"]): _sample(sample, scored, key) for sample in logged})


def _sample(logged: Mapping[str, Any], scored: str | None, key: str | None) -> Sample:
    document = logged.get("doc") or {}
    video = next((document[name] for name in (key, *_VIDEOS) if document.get(name) is not None), logged["doc_id"])
    record = (logged["token_counts"][0] or {}).get("score") or {}
    score = None if scored is None else _score(logged.get(scored))
    return Sample(score, str(video), record.get("kept"), record.get("tokens"), record.get("milliseconds", {}))


def _score(value: Any) -> float | None:
    """A number, or what tasks hand to their own sums: a score, or an answer beside the right one."""
    if isinstance(value, (bool, int, float)):
        return float(value)
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("score"), (bool, int, float)):
        return float(value["score"])
    answer = next((value[name] for name in _ANSWERS if name in value), None)
    truth = next((value[name] for name in _TRUTHS if name in value), None)
    return None if answer is None or truth is None else float(str(answer) == str(truth))
