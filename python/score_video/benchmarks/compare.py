"""The whole of a comparison: runs what is not there yet, and writes the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from score_video.benchmarks.markdown import markdown
from score_video.benchmarks.protocols import Protocol
from score_video.benchmarks.report import make_report
from score_video.benchmarks.runs import Run, Settings, run_all
from score_video.drawing.accuracy_panels import Panel, draw_accuracy_panels
from score_video.errors import ScoreError
from score_video.files import output_file, write_json


def compare(
    runs: Sequence[Run],
    settings: Settings,
    output: Path,
    say: Callable[[str], None],
    protocol: Protocol | None = None,
) -> dict[str, Any]:
    """Writes ``report.json``, ``report.md`` and, where there is an accuracy to draw, ``report.png`` into a folder.

    Args:
        output: the folder, which may hold earlier runs.
        say: told where things are.
        protocol: the one whose published figures stand beside.

    Returns:
        the report.

    Raises:
        ScoreError: lmms-eval or matplotlib is not installed.
    """
    for package in ("lmms_eval", "matplotlib"):
        if find_spec(package) is None:
            raise ScoreError(f'score bench needs {package}: pip install "score-video[eval]"')
    results, errors = run_all(runs, settings, output, say)
    report = make_report(runs, results, errors, settings, protocol)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "report.json", report)
    with output_file(output / "report.md") as temporary:
        temporary.write_text(markdown(report), encoding="utf-8")
    if drawn := panels(report["rows"]):
        with output_file(output / "report.png") as temporary:
            draw_accuracy_panels(temporary, drawn)
    return report


def panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """One for each model and task of a report's rows that has an accuracy at some retention."""
    found: list[Panel] = []
    for model, task in dict.fromkeys((row["model"], row["task"]) for row in rows):
        here = [row for row in rows if (row["model"], row["task"]) == (model, task) and row["accuracy"] is not None]
        lines: dict[str, list[tuple[float, float, float | None]]] = {}
        for row in here:
            if row["retention"] is not None:
                reached = row["kept"] / row["tokens"] if row["kept"] and row["tokens"] else row["retention"]
                point = (reached, row["accuracy"], row["accuracy_error"])
                lines.setdefault(row["compressor"], []).append(point)
        if lines:
            full = next((row["accuracy"] for row in here if row["retention"] is None), None)
            found.append(Panel(f"{Path(model).name}, {task}", full, lines))
    return found
