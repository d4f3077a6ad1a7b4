"""The results file of ``make gpu`` from what bench/gpu.py measured and the steps that tools/gpu.sh noted.

    python bench/gpu_report.py MEASUREMENTS.json STEPS.tsv bench/results

Without a GPU: nothing here needs one, nor torch. The floor of a row is the time that a copy running at the bandwidth
measured in the same run needs for the bytes that the job cannot do without moving.
"""

from __future__ import annotations

import datetime
import json
import re
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]
# What an H200 should show, of our row of a job.
GOALS = (
    ("surprise", "bandwidth_ratio", "at least", 0.85),
    ("gather", "bandwidth_ratio", "at least", 0.85),
    ("compress", "floor_ratio", "at most", 1.4),
    ("compress", "faster_than_compile", "at least", 3.0),
    ("compress", "faster_than_engine", "at least", 10.0),
)


def time_of(row: Row) -> float:
    """Without the launches' cost where that could be measured."""
    return row.get("graph_ms", row["ms"])


def speed_up(ours: Row, rivals: list[Row]) -> float | None:
    """How many times faster than the fastest of them; like with like: replayed graphs where both have one."""
    ratios = []
    for rival in rivals:
        kind = "graph_ms" if "graph_ms" in rival and "graph_ms" in ours else "ms"
        if kind in rival:
            ratios.append(rival[kind] / ours[kind])
    return min(ratios, default=None)


def with_ratios(measurements: list[Row]) -> list[Row]:
    """The rows with bandwidth and floor; ours with how much faster they are than each kind of rival in their job."""
    copy = next(row for row in measurements if row["job"] == "copy")
    copy_bytes_per_ms = copy["bytes"] / time_of(copy)
    rows = []
    for measurement in measurements:
        row = dict(measurement)
        if "bytes" in row and "ms" in row:
            bytes_per_ms = row["bytes"] / time_of(row)
            row["gb_per_s"] = bytes_per_ms / 1e6
            row["bandwidth_ratio"] = bytes_per_ms / copy_bytes_per_ms
            row["floor_ratio"] = copy_bytes_per_ms / bytes_per_ms
        if row["variant"].startswith("ours"):
            for rival in ("eager", "compile", "engine", "torch"):
                others = [other for other in measurements if other["job"] == row["job"]]
                ratio = speed_up(row, [other for other in others if other["variant"].startswith(rival)])
                if ratio is not None:
                    row[f"faster_than_{rival}"] = ratio
        rows.append(row)
    return rows


def goals(rows: list[Row]) -> list[Row]:
    """Each goal, what was measured, and whether that reaches it. They were set for an H200."""
    found = []
    for job, figure, sense, bound in GOALS:
        value = next(row for row in rows if row["job"] == job and row["variant"] == "ours").get(figure)
        reached = value is not None and (value >= bound if sense == "at least" else value <= bound)
        found.append({"job": job, "figure": figure, "goal": f"{sense} {bound}", "is": value, "reached": reached})
    return found


def cell(row: Row, name: str, width: int, decimals: int) -> str:
    return f"{row[name]:{width}.{decimals}f}" if name in row else " " * width


def table(rows: list[Row]) -> str:
    lines = [f"{'job':<10}  {'variant':<58}  {'ms':>9}  {'graph ms':>9}  {'GB/s':>6}  {'x floor':>7}"]
    for row in rows:
        cells = (cell(row, "ms", 9, 4), cell(row, "graph_ms", 9, 4), cell(row, "gb_per_s", 6, 0))
        line = "  ".join((f"{row['job']:<10}", f"{row['variant']:<58}", *cells, cell(row, "floor_ratio", 7, 2)))
        lines.append(line.rstrip() + (f"  failed: {row['failed']}" if "failed" in row else ""))
    return "\n".join(lines)


def read_steps(path: Path) -> list[Row]:
    """What tools/gpu.sh noted: a line per step, of name, outcome and detail with tabs between."""
    return [
        dict(zip(("step", "outcome", "detail"), line.split("\t"), strict=True))
        for line in path.read_text().splitlines()
    ]


def report(measurements: Row, steps: list[Row], folder: Path) -> Path:
    """Writes gpu-NAME.json and prints what it says."""
    rows = with_ratios(measurements["rows"])
    results = {
        "date": str(datetime.date.today()),
        **{name: value for name, value in measurements.items() if name != "rows"},
        "steps": steps,
        "goals": goals(rows),
        "rows": rows,
    }
    slug = re.sub(r"[^a-z0-9]+", "-", measurements["gpu"].lower()).strip("-")
    path = folder / f"gpu-{slug}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(table(rows))
    for goal in results["goals"]:
        value = "not measured" if goal["is"] is None else f"{goal['is']:.2f}"
        verdict = "reached" if goal["reached"] else "NOT REACHED"
        print(f"{goal['job']} {goal['figure']}: {value}, goal {goal['goal']}: {verdict}")
    return path


def main() -> None:
    if len(sys.argv) != 4:
        sys.exit("usage: python bench/gpu_report.py MEASUREMENTS.json STEPS.tsv FOLDER")
    measurements, steps, folder = (Path(argument) for argument in sys.argv[1:])
    print(f"written: {report(json.loads(measurements.read_text()), read_steps(steps), folder)}")


if __name__ == "__main__":
    main()
