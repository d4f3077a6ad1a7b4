"""Tests that need a GPU and the CUDA kernels; everything here is skipped without. `make gpu` runs them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import score_ext

sys.path.append(str(Path(__file__).parents[1] / "score_ext"))  # batches and cases, the helpers of the ops' tests


@pytest.fixture(scope="session", autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use")
    if not score_ext.cuda_library_loaded():
        pytest.skip("the CUDA kernels are not built (SCORE_CUDA=ON)")
