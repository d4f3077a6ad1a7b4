"""tests/cuda_emulation/test_relative.py once more: the same calls and comparisons, on the PTX that nvcc makes."""

from __future__ import annotations

from test_relative import *  # noqa: F403
