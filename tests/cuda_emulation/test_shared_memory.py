"""How kernels come by more shared memory than 48 KB, and wait for what they copy into it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import torch
from emulated_ops import Ops
from emulator import ROOT, Emulator
from test_kernels import video_tokens

import score_ext


@pytest.fixture
def ops_on_turing() -> Iterator[Ops]:
    emulator = Emulator()
    yield Ops(emulator, shared_bytes=64 << 10)
    emulator.close()


def check_surprise(ops: Ops, width: int, dtype: torch.dtype) -> None:
    tokens, cu, n = video_tokens([4, 3], [3, 2], width, dtype)
    expected = score_ext.surprise(tokens, cu, n)
    torch.testing.assert_close(ops.surprise(tokens, cu, n), expected, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_one_width_does_not_lower_the_limit_of_another(ops: Ops) -> None:
    """Rows of 256 and of 128 vectors go through one kernel. Two host threads that set its limit each to what their own
    rows need would undo each other's; the emulation aborts where a limit is lowered. tests/gpu has the threads."""
    for width in (2048, 1024, 2048):
        check_surprise(ops, width, torch.bfloat16)


@pytest.mark.parametrize(("width", "dtype"), [(6144, torch.float32), (12_288, torch.bfloat16)], ids=str)
def test_rows_that_do_not_fit_the_shared_memory_of_turing(ops_on_turing: Ops, width: int, dtype: torch.dtype) -> None:
    for _ in range(2):  # the second call finds the answer of the first
        check_surprise(ops_on_turing, width, dtype)


def test_every_wait_for_copies_is_a_fence() -> None:
    """That no compiler moves a read ahead of the wait is nothing that a run could show: today's do not."""
    waits = [path.name for path in (ROOT / "csrc/cuda").iterdir() if "__pipeline_wait_prior" in path.read_text()]
    assert waits == ["pipeline.cuh"]
    wait = re.search(r"__pipeline_wait_prior\(kGroupsLeft\);\n(.*)\n", (ROOT / "csrc/cuda/pipeline.cuh").read_text())
    assert wait is not None and wait[1].strip() == 'asm volatile("" ::: "memory");'
