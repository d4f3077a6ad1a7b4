"""Functions of the task that conftest.py writes: lmms-eval loads them from beside the task's YAML."""

from __future__ import annotations

from typing import Any


def doc_to_messages(doc: dict[str, Any], lmms_eval_specific_kwargs: object = None) -> list[dict[str, Any]]:
    del lmms_eval_specific_kwargs
    content = [{"type": "video", "url": doc["video"]}, {"type": "text", "text": doc["question"]}]
    return [{"role": "user", "content": content}]


def doc_to_visual(doc: dict[str, Any]) -> list[str]:
    return [doc["video"]]


def process_results(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    return {"accuracy": float(results[0].strip() == doc["answer"])}
