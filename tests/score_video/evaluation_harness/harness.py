"""Runs lmms-eval in the process of the tests, on the task of conftest.py. Imported only where lmms-eval is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmms_eval import evaluator
from lmms_eval.models import get_model
from lmms_eval.tasks import TaskManager

FRAMES = 8
SMALL = 4 * 28 * 28
"""Pixels of a frame at least, which lmms-eval's class scales up to: its default are 256 tokens."""


def samples(model: Any, task: Path) -> list[dict[str, Any]]:
    """lmms-eval's log, by document. In float32: bfloat16, which its classes load, leaves ties to the kernels."""
    model.model.float()
    manager = TaskManager("ERROR", include_path=str(task), model_name="score")
    results = evaluator.simple_evaluate(
        model=model, tasks=["own"], task_manager=manager, batch_size=model.batch_size, log_samples=True
    )
    return sorted(results["samples"]["own"], key=lambda sample: sample["doc_id"])


def answers(logged: list[dict[str, Any]]) -> list[str]:
    return [sample["filtered_resps"][0] for sample in logged]


def records(logged: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [sample["token_counts"][0]["score"] for sample in logged]


def score(folder: Path, settings: str) -> Any:
    """As ``--model_args`` makes it; ``min_pixels`` is of lmms-eval's class for Qwen."""
    others = {"batch_size": 1, "max_batch_size": None, "device": "cpu"}
    smallest = f"min_pixels={SMALL}," if "qwen" in folder.name else ""
    arguments = f"pretrained={folder},max_num_frames={FRAMES},{smallest}{settings}"
    return get_model("score").create_from_arg_string(arguments, others)
