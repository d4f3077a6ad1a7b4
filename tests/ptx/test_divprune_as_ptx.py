"""tests/cuda_emulation/test_divprune_kernels.py once more: the same calls, on the PTX that nvcc makes."""

from __future__ import annotations

from test_divprune_kernels import *  # noqa: F403
