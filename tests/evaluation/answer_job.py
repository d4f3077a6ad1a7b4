"""A job for the tests of the pool; on its own, so that a worker that runs it starts quickly."""

from __future__ import annotations

import os
from typing import Any

import torch

from evaluation.jobs import Files


def answer(files: Files, what: str) -> dict[str, Any]:
    """Returns, raises or dies."""
    if what == "raise":
        raise ValueError("asked to")
    if what == "die":
        os._exit(7)
    return {"answer": what, "threads": torch.get_num_threads()}
