"""Runs jobs in worker processes: each with one thread, and none of them taking the others along when it dies."""

from __future__ import annotations

import multiprocessing
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from evaluation.jobs import Files, Job, Result

Functions = Mapping[str, Callable[..., Result]]


@dataclass(frozen=True)
class Done:
    """A job that has ended.

    Attributes:
        job: the one that ended.
        seconds: how long it took.
        cpu_seconds: how much of a core it took, which does not depend on what else the machine was doing.
        result: what came of it; None where it failed.
        error: why it failed: a traceback, or a line; None where it did not.
    """

    job: Job
    seconds: float
    cpu_seconds: float
    result: Result | None
    error: str | None


def run_all(jobs: Iterable[Job], functions: Functions, files: Files, workers: int) -> Iterator[Done]:
    """Runs the jobs, about in their order, and gives each as it ends.

    A job that raises has failed, and so has one whose process dies; the rest go on. ``functions`` are those that jobs
    name, importable from their modules.
    """
    # spawn: nothing of this process is shared, and when it is killed the pipes close and the workers end
    context = multiprocessing.get_context("spawn")
    own, processes = threading.local(), list[BaseProcess]()

    def run(job: Job) -> Done:
        """In this thread's own process; in a new one at first, and after one that died."""
        if not (hasattr(own, "process") and own.process.is_alive()):
            own.connection, theirs = context.Pipe()
            own.process = context.Process(target=_work, args=(theirs, files, functions), daemon=True)
            own.process.start()
            theirs.close()
            processes.append(own.process)
        began = time.monotonic()
        try:
            own.connection.send((job.function, dict(job.parameters)))
            ended = own.connection.recv()
        except (EOFError, OSError):
            own.process.join(10)
            ended = 0.0, None, f"its process died (exit status {own.process.exitcode})"
        return Done(job, time.monotonic() - began, *ended)

    threads = ThreadPoolExecutor(workers)
    try:
        for future in as_completed([threads.submit(run, job) for job in jobs]):
            yield future.result()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


def _work(connection: Any, files: Files, functions: Functions) -> None:
    """What a worker process does until nobody asks any more."""
    torch.set_num_threads(1)  # sums are added up in the same order on every machine
    with suppress(EOFError, OSError, KeyboardInterrupt):
        while True:
            function, parameters = connection.recv()
            began = time.process_time()
            try:
                outcome = functions[function](files, **parameters), None
            except Exception:
                outcome = None, traceback.format_exc().rstrip()
            connection.send((time.process_time() - began, *outcome))
