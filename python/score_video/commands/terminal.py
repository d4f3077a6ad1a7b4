"""What commands show on a terminal, and elsewhere in its stead."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from score_video.progress import Progress


def console() -> Console:
    """For tables; elsewhere than on a terminal no line is folded."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120)


def printable(text: str) -> str:
    """Of several lines, which may hold terminal codes too."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def lines_from_terminal(prompt: str) -> Iterator[str]:
    """Lines of the standard input that are not empty, until its end; on a terminal after a prompt, to an empty one."""
    while True:
        if asking := sys.stdin.isatty():
            print(prompt, end="", flush=True)
        line = sys.stdin.readline()
        if not line or (asking and not line.strip()):
            if asking and not line:
                print()
            return
        if line.strip():
            yield line.strip()


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on a terminal; elsewhere a line as each phase begins."""
    if not sys.stdout.isatty():

        def line(phase: str, done: int, total: int) -> None:
            if done == 0:
                print(phase, flush=True)

        yield line
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=True) as bar:
        tasks = {}

        def advance(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bar.add_task(phase, total=total)
            elif (done, total) == (1, 1):
                bar.update(tasks[phase], completed=bar.tasks[tasks[phase]].total)
            else:
                bar.update(tasks[phase], completed=done, total=total)

        yield advance
