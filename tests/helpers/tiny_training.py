"""The configuration of a training on a tiny MLLM."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def tiny_training(model: Path, folder: Path, options: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """As YAML holds it.

    Args:
        model: the model's folder.
        folder: has train.jsonl and validation.jsonl, and gets the features.
        options: of the environment, besides.
        settings: of the training, besides.
    """
    cache = {"num_frames": 4, "cache_dir": str(folder / "features")}
    few = {"num_generations": 2, "retention": 0.3, "reward": "fidelity", "report_to": "none", "use_cpu": True}
    return {
        "environment": "mllm",
        "environment_options": {"model": str(model), **cache, **options},
        "data": {name: str(folder / f"{name}.jsonl") for name in ("train", "validation")},
        "policy": {"hidden_sizes": [8]},
        "training": {**few, **settings},
    }
