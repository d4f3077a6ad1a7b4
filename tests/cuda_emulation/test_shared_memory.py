"""Kernels that want more shared memory than a device has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from emulated_ops import Ops
from emulator import Emulator
from test_relative_kernels import batch


@pytest.fixture
def emulator() -> Iterator[Emulator]:
    started = Emulator()
    yield started
    started.close()


def test_tiles_of_two_frames_where_four_do_not_fit(emulator: Emulator) -> None:
    """Turing has 64 KB. The number of frames does not show in the measures, and the refusal is no error of the call."""
    given = batch([(5, 1, 2), (7, 9, 15)], 160, torch.bfloat16)
    expected = Ops(emulator, resident_blocks=1).relative_measures(*given)
    on_turing = Ops(emulator, resident_blocks=1, shared_bytes=64 << 10)
    for _ in range(2):
        found = on_turing.relative_measures(*given)
        assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
