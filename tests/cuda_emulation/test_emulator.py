"""The emulation finds the faults that it is there to find."""

from __future__ import annotations

import pytest
import torch
from emulator import EmulationError, Emulator


def run(number: int, backwards: bool = False, value: int = 0) -> tuple[int, int]:
    emulator = Emulator()
    emulator.configure(1, backwards)
    out = torch.full((4,), value, dtype=torch.int32)
    error = emulator.call("fault", number=number, out=out, size=len(out))
    emulator.close()
    return error, int(out[0])


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "heap-buffer-overflow"),
        (1, "heap-buffer-overflow"),
        (2, "out of bounds"),
        (3, "its threads wait for each other"),
        (4, "for threads that wait at"),
        (5, "its threads wait for each other"),
        (6, "used again without a barrier"),
        (7, "without waiting for its asynchronous copies"),
        (9, "on another stream"),
        (11, "lowers a kernel's shared memory"),
    ],
)
def test_planted_fault_is_found(number: int, said: str) -> None:
    with pytest.raises(EmulationError, match=said):
        run(number, value=64)


def test_order_of_turns_shows_a_race() -> None:
    assert run(8) != run(8, backwards=True)


def test_launch_that_no_device_accepts_returns_an_error() -> None:
    assert run(10)[0] == 9  # cudaErrorInvalidConfiguration
