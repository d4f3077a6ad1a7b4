"""Times on a GPU, and the rows that they are kept in."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from score_video.files import output_file

Row = dict[str, Any]
Inputs = Sequence[tuple[Any, ...]]
Check = Callable[[Any, Any], None]
"""(a rival's result, ours): raises where they differ by more than rounding."""


def milliseconds(run: Callable[[], None], calls: int, repeats: int = 15) -> float:
    """Median time of one of the `calls` calls that run() makes."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / calls)
    return statistics.median(times)


def measured(function: Callable[..., Any], inputs: Inputs, graph: bool) -> Row:
    """`ms` and, where the function can be captured, `graph_ms` of calls over all inputs in turn."""

    def run() -> None:
        for arguments in inputs:
            function(*arguments)

    row: Row = {"ms": milliseconds(run, len(inputs))}
    if graph:
        torch.cuda.synchronize()
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            run()
        row["graph_ms"] = milliseconds(captured.replay, len(inputs))
    torch.cuda.empty_cache()
    return row


class Measurements:
    """The rows of a run, written to a file as they come; what the file has already is not measured again.

    ``job`` is what is done, ``variant`` who does it. The rows that are there are gone on with only if they are of the
    same run: card, versions, build.
    """

    def __init__(self, path: Path, run: Row) -> None:
        self._path, self._run = path, run
        self.rows: list[Row] = []
        self.disagree = False  # whether a rival did something else than ours
        if path.exists():
            found = json.loads(path.read_text())
            rows = found.pop("rows")
            if {**found, "date": None} == {**json.loads(json.dumps(run)), "date": None}:
                self.rows = rows

    def add(
        self, job: str, variant: str, function: Callable[..., Any], inputs: Inputs, moved: int | None = None,
        graph: bool = True, like: tuple[Callable[..., Any], Check] | None = None,
    ) -> None:  # fmt: skip
        """Times a function over inputs in turn.

        Args:
            job, variant: the row's name; "ours..." are the ops of this package.
            function, inputs: what is called, with which arguments, one call each.
            moved: bytes that a call cannot do without moving.
            graph: whether it is timed as a CUDA graph too.
            like: the function of ours that it must agree with, and how; looked at before anything is timed.
        """
        if any((row["job"], row["variant"]) == (job, variant) for row in self.rows):
            return
        row: Row = {"job": job, "variant": variant, **({"bytes": moved} if moved else {})}
        try:
            found = function(*inputs[0])
        except Exception as error:
            if variant.startswith("ours"):
                raise
            # a rival that does not run here is no reason to stop
            row["failed"] = str(error).partition("\n")[0]
        else:
            row.update(self._checked_and_measured(found, function, inputs, graph, like))
        self.rows.append(row)
        with output_file(self._path) as file:
            file.write_text(json.dumps({**self._run, "rows": self.rows}, indent=1) + "\n")
        print(json.dumps(row), flush=True)

    def _checked_and_measured(
        self, found: Any, function: Callable[..., Any], inputs: Inputs, graph: bool,
        like: tuple[Callable[..., Any], Check] | None,
    ) -> Row:  # fmt: skip
        if like is not None:
            ours, check = like
            try:
                check(found, ours(*inputs[0]))
            except AssertionError as error:
                self.disagree = True
                return {"failed": "does something else than ours: " + " ".join(str(error).split())}
        return measured(function, inputs, graph)

    def add_compiled(
        self, job: str, name: str, function: Callable[..., Any], inputs: Inputs, moved: int | None = None,
        like: tuple[Callable[..., Any], Check] | None = None, modes: Sequence[str] = ("default",),
    ) -> None:  # fmt: skip
        """The same for torch.compile of a function, in each mode."""
        for mode in modes:
            torch._dynamo.reset()
            compiled = torch.compile(function, fullgraph=True, mode=mode)
            self.add(job, f"compile {name}, {mode}", compiled, inputs, moved, like=like)
