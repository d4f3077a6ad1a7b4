"""Times of the phases of a job, and of a command's start."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, int, int], None]
"""Called with (phase, steps done, steps in all)."""


class Phases:
    """Measures phases, and says where they are.

    Attributes:
        milliseconds: how long each finished phase took.
    """

    def __init__(self, progress: Progress | None = None, synchronize: Callable[[], None] = lambda: None) -> None:
        """synchronize: waits for what runs beside the host (an accelerator), so that times are of work done."""
        self.milliseconds: dict[str, float] = {}
        self._progress = progress or (lambda phase, done, total: None)
        self._synchronize = synchronize

    @contextmanager
    def __call__(self, phase: str) -> Iterator[Callable[[int, int], None]]:
        """The block is the phase. It is given a function that takes (steps done, steps in all)."""
        self._progress(phase, 0, 1)
        self._synchronize()
        start = time.perf_counter()
        yield partial(self._progress, phase)
        self._synchronize()
        self.milliseconds[phase] = (time.perf_counter() - start) * 1000
        self._progress(phase, 1, 1)

    def began_with_the_process(self) -> None:
        """Notes the time that the process has run until now, the interpreter's own start included, as "start".

        For commands. Nothing is noted where the system does not tell.
        """
        if (seconds := _seconds_since_start()) is not None:
            self.milliseconds["start"] = seconds * 1000


def synchronize(device: torch.device) -> None:
    """Waits for what runs on an accelerator; on the CPU there is nothing to wait for."""
    if device.type != "cpu":
        import torch

        torch.accelerator.synchronize(device)


def _seconds_since_start() -> float | None:
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return None


@contextmanager
def quick_imports() -> Iterator[None]:
    """For the imports that a command begins with.

    Importing torch makes some million objects that stay. Garbage collections go over them again and again, and once
    more at the process's end: together a third of the time that the import takes.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # what was imported is no garbage
        if was_on:
            gc.enable()
