"""Writes results as lmms-eval does."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def write_results(
    folder: Path,
    scores: Sequence[Any],
    kept: int | None = None,
    *,
    videos: Sequence[str] | None = None,
    logged: int | None = None,
    task: str = "own",
) -> Path:
    """Of one task.

    Args:
        folder: made anew.
        scores: what each sample's log has for the metric.
        kept: of 100 tokens of each sample; None: nothing was compressed.
        videos: what each question is about; None: the task does not say.
        logged: so many samples, from the first on, are in the log; None: all.
        task: its name.

    Returns:
        the file of results.
    """
    place = folder / "some__model"
    place.mkdir(parents=True)
    metrics = {"alias": task, "accuracy,none": 0.5, "accuracy_stderr,none": "N/A"}
    count = {task: {"original": len(scores), "effective": len(scores)}}
    results = {"results": {task: metrics}, "n-samples": count, "group_subtasks": {task: []}}
    (place / "20261126_1_results.json").write_text(json.dumps(results), encoding="utf-8")
    record: dict[str, Any] = {"batch": 1, "milliseconds": {"read": 2.0, "prefill": 8.0}}
    record |= {} if kept is None else {"kept": kept, "tokens": 100}
    lines = []
    for number, score in enumerate(scores):
        sample = {"doc_id": number, "accuracy": score, "token_counts": [{"score": record}]}
        sample["doc"] = {} if videos is None else {"video": videos[number]}
        lines.append(json.dumps(sample) + "\n")
    (place / f"20261126_1_samples_{task}.jsonl").write_text("".join(lines[:logged]), encoding="utf-8")
    return place / "20261126_1_results.json"
