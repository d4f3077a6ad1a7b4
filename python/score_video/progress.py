"""Times of the phases of a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

Progress = Callable[[str, int, int], None]
"""Called with (phase, steps done, steps in all)."""


class Phases:
    """Measures phases, and says where they are.

    Attributes:
        milliseconds: how long each finished phase took.
    """

    def __init__(self, progress: Progress | None, synchronize: Callable[[], None] = lambda: None) -> None:
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
