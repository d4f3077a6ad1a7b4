"""Training in tests: quiet, and in a folder of its own."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """What is equal to the bit is so for a number of threads."""
    torch.set_num_threads(1)
