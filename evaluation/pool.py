"""Runs jobs in worker processes: each with one thread, and none of them taking the others along when it dies."""

from __future__ import annotations

import multiprocessing
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from queue import Empty, SimpleQueue
from threading import Thread
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
        error: why it failed, on one line; and the whole traceback.
    """

    job: Job
    seconds: float
    cpu_seconds: float
    result: Result | None
    error: tuple[str, str] | None = None


def run_all(
    jobs: Iterable[Job],
    functions: Functions,
    files: Files,
    workers: int,
    done: Callable[[Done], None],
) -> None:
    """Runs the jobs, about in their order, and calls ``done`` with each as it ends, in this thread.

    A job that raises has failed, and so has one whose process dies; the rest go on. ``functions`` are those that jobs
    name, importable from their modules.
    """
    waiting: SimpleQueue[Job] = SimpleQueue()
    count = 0
    for job in jobs:
        waiting.put(job)
        count += 1
    ended: SimpleQueue[Done] = SimpleQueue()
    crew = [_Worker(files, functions) for _ in range(min(workers, count))]
    for worker in crew:
        Thread(target=_serve, args=(worker, waiting, ended), daemon=True).start()
    try:
        for _ in range(count):
            done(ended.get())
    finally:
        while not waiting.empty():  # interrupted: nobody is to begin another
            with suppress(Empty):
                waiting.get_nowait()
        for worker in crew:
            worker.stop()


def _serve(worker: _Worker, waiting: SimpleQueue[Job], ended: SimpleQueue[Done]) -> None:
    while True:
        try:
            job = waiting.get_nowait()
        except Empty:
            return
        ended.put(worker.run(job))


class _Worker:
    """A process and the connection to it; another one after it has died."""

    def __init__(self, files: Files, functions: Functions) -> None:
        self._given = files, functions
        self._process: Any = None
        self._connection: Connection | None = None

    def run(self, job: Job) -> Done:
        """Waits for the job."""
        began = time.monotonic()
        if self._connection is None:
            self._start()
        assert self._connection is not None
        try:
            self._connection.send((job.function, dict(job.parameters)))
            cpu_seconds, result, error = self._connection.recv()
        except (EOFError, OSError):
            self._process.join(10)
            error = (f"its process died (exit status {self._process.exitcode})", "")
            cpu_seconds, result, self._connection = 0.0, None, None
        return Done(job, time.monotonic() - began, cpu_seconds, result, error)

    def _start(self) -> None:
        # spawn: nothing of this process is shared, and when it is killed the pipe closes and the worker ends
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs, *self._given), daemon=True)
        self._process.start()
        theirs.close()

    def stop(self) -> None:
        """Ends the process, whatever it is doing."""
        if self._process is not None:
            self._process.terminate()


def _work(connection: Connection, files: Files, functions: Functions) -> None:
    """What a worker process does until nobody asks any more."""
    torch.set_num_threads(1)
    while True:
        try:
            function, parameters = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        began = time.process_time()
        result: Result | None = None
        error: tuple[str, str] | None = None
        try:
            result = functions[function](files, **parameters)
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}".splitlines()[0], traceback.format_exc()
        try:
            connection.send((time.process_time() - began, result, error))
        except OSError:  # killed in the meantime
            return
