"""What tests of models share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch


@pytest.fixture
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny Qwen2.5-VL with its processor, and few tokens to a frame."""
    from score_video.testing import save_tiny_model

    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models") / "qwen"
    save_tiny_model(folder, "qwen2_5_vl", tokens_per_frame=12)
    return folder
