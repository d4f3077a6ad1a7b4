"""Runs jobs in worker processes: each with one thread, and none of them taking the others along when it dies."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import torch

from evaluation.jobs import Files, Job, Result

Functions = Mapping[str, Callable[..., Result]]


@dataclass(frozen=True)
class Done:
    """A job that has ended.

    Attributes:
        job: which.
        seconds: how long it took.
        cpu_seconds: how much of a core it took, which does not depend on what else the machine was doing.
        result: what came of it; None where it failed.
        error: why it failed, its first line on its own; and the whole traceback.
    """

    job: Job
    seconds: float
    cpu_seconds: float
    result: Result | None
    error: tuple[str, str] | None = None


def run_all(jobs: Iterable[Job], functions: Functions, files: Files, workers: int) -> Iterator[Done]:
    """Runs the jobs, about in their order, and gives each as it ends.

    A job that raises has failed, and so has one whose process dies; the rest go on. ``functions`` are those that jobs
    name, importable from their modules.
    """
    # spawn: nothing of this process is shared, and when it is killed the pipes close and the workers end
    context = multiprocessing.get_context("spawn")
    waiting, idle = deque(jobs), deque[tuple[Any, Any]]()  # processes and the connections to them
    busy: dict[Any, tuple[Any, Job, float]] = {}
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                if not idle:
                    ours, theirs = context.Pipe()
                    process = context.Process(target=_work, args=(theirs, files, functions), daemon=True)
                    process.start()
                    theirs.close()
                    idle.append((process, ours))
                process, connection = idle.popleft()
                job = waiting.popleft()
                busy[connection] = process, job, time.monotonic()
                with suppress(OSError):  # it died while it was idle: told when nothing can be received
                    connection.send((job.function, dict(job.parameters)))
            ready: list[Any] = wait(busy)
            for connection in ready:
                process, job, began = busy.pop(connection)
                try:
                    cpu_seconds, result, error = connection.recv()
                    idle.append((process, connection))
                except (EOFError, OSError):
                    process.join(10)
                    cpu_seconds, result, error = 0.0, None, (f"its process died (exit status {process.exitcode})", "")
                yield Done(job, time.monotonic() - began, cpu_seconds, result, error)
    finally:
        for process, _ in (*idle, *((process, None) for process, _, _ in busy.values())):
            process.terminate()


def _work(connection: Any, files: Files, functions: Functions) -> None:
    """What a worker process does until nobody asks any more."""
    torch.set_num_threads(1)  # sums are added up in the same order on every machine
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            function, parameters = connection.recv()
            began = time.process_time()
            result, error = None, None
            try:
                result = functions[function](files, **parameters)
            except Exception as raised:
                error = f"{type(raised).__name__}: {raised}".splitlines()[0], traceback.format_exc()
            connection.send((time.process_time() - began, result, error))
