"""The results file of ``make gpu``, and docs/gpu.md of all such files.

    python bench/gpu/report.py MEASUREMENTS.json STEPS.tsv     a new file in bench/results, then docs/gpu.md
    python bench/gpu/report.py                                 docs/gpu.md alone

Without a GPU: nothing here needs one, nor torch. The floor of a row is the time that a copy running at the bandwidth
measured in the same run needs for the bytes that the job cannot do without moving.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]
ROOT = Path(__file__).parents[2]
PREDICTIONS = Path(__file__).with_name("predictions.json")
# What an H200 should show, of our row of a job.
GOALS = (
    ("surprise", "ours", "floor_ratio", "at most", 1.2),
    ("gather", "ours", "floor_ratio", "at most", 1.2),
    ("compress", "ours", "floor_ratio", "at most", 1.4),
    ("compress", "ours", "faster_than_compile", "at least", 3.0),
    ("compress", "ours", "faster_than_engine", "at least", 10.0),
    ("select, 40000", "ours, topk", "graph_ms", "at most", 0.015),
    ("select, 40000", "ours, systematic", "graph_ms", "at most", 0.030),
    ("select, 1000000", "ours, topk", "graph_ms", "at most", 0.130),
    ("select, 1000000", "ours, systematic", "graph_ms", "at most", 0.450),
    ("relative_state, 40000 x 3584", "ours", "graph_ms", "at most", 0.6),
)

INTRO = """# GPU benchmarks

Made by `make gpu`; do not edit.

Medians in milliseconds. **graph** is the same calls replayed from a CUDA graph, without what Python and the launches
cost; **floor** how many times longer that is than a copy of the bytes that the job cannot do without moving, at the
speed of `copy_` in the same run. Inputs rotate and are together larger than the L2 cache. What ours is compared with
was checked first to do the same (but for random draws). **predicted** is what was counted on before a
kernel had run, for an H100; all predictions are at the end. Torch's own rows are called as torch ships them; `compile`
is the mode in its name.
"""

PREDICTED = """
## Predictions

For an H100, made before the kernels had run on any GPU and kept as they were made; where the last column is empty, no
GPU has run the job yet. **MB** is what must move at the least, **at 3 TB/s** the time that takes, **Gflop** the
arithmetic of floats. What each prediction is made of:

- review: instructions counted by an interpreter of the kernels' PTX, divided by what a multiprocessor issues, or the
  bytes where they take longer;
- launches: 3 us for a kernel that others depend on;
- steps: one for each token that is kept. A step is an election, 3 us (a barrier of the grid took 1.05 on the H200),
  1.3 us of looking through a warp's tokens and a microsecond for each round of products of the busiest warp, of which
  `python -m bench.gpu.divprune_steps` counts two. The selection diverse makes a step of all windows at once, a hundred
  in all; with 40 windows three blocks are left to each, and a round of 3,584 columns takes 7 us (it looked at the
  tokens themselves then; whitened they have 128 columns);
- lines: a warp's load of one float from each of 32 cells touches some 16 lines of 128 bytes, one of which the L1 cache
  serves in a cycle.

"""


SHORT_OF_GOALS = """
## What falls short of its goal

On the H200:

- **compress** is `surprise`, `select`, `gather` and `kept_offsets`, one after the other. The first alone takes 0.94 of
  the floor of all, since the tokens are most of the bytes; the others wait for it. Tried and kept: rows of `surprise`
  straight into registers, not through shared memory (89 us to 71); seats without a plan for one video. Not tried: a
  first histogram in `surprise`'s own pass.
- **select**, 40,000: a launch that seats the blocks, and 3 or 4 barriers of the grid for topk, one for each step of the
  solver for systematic, 1.05 us each. One block on its own took 87 and 185 us. Tried and kept: histograms of 11 bits in
  shared memory, scores read once, sums of warps added up by a warp. Not tried: clusters of blocks, whose barriers are
  shorter.
- **relative_state**, 40,000 x 3,584: 0.54 ms, below the 0.6 of a first version and above the 0.31 that was the goal
  beyond it.
- **select**, a million: reached several times over.
"""


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
    # a graph's copy is made by other hardware than a kernel's, and can be the slower one
    copy_bytes_per_ms = copy["bytes"] / min(copy["ms"], time_of(copy))
    predictions = {(each["job"], each["variant"]): each["ms"] for each in read_predictions()}
    rows = []
    for measurement in measurements:
        row = dict(measurement)
        if "bytes" in row and "ms" in row:
            bytes_per_ms = row["bytes"] / (min(row["ms"], time_of(row)) if row["job"] == "copy" else time_of(row))
            row["gb_per_s"] = bytes_per_ms / 1e6
            row["floor_ratio"] = copy_bytes_per_ms / bytes_per_ms
        if (predicted := predictions.get((row["job"], row["variant"]))) is not None:
            row["predicted_ms"] = predicted
        if row["variant"].startswith("ours"):
            for rival in ("eager", "compile", "engine", "torch"):
                others = [other for other in measurements if other["job"] == row["job"]]
                ratio = speed_up(row, [other for other in others if other["variant"].startswith(rival)])
                if ratio is not None:
                    row[f"faster_than_{rival}"] = ratio
        rows.append(row)
    return rows


def read_predictions() -> list[Row]:
    found: list[Row] = json.loads(PREDICTIONS.read_text())
    return found


def predictions_table(runs: list[Row]) -> list[str]:
    """Each prediction, and what the GPUs showed where one has run the job."""
    gpus = [run["gpu"] for run in runs]
    head = ("job", "variant", "launches", "MB", "Gflop", "at 3 TB/s, us", "predicted, us", "from")
    lines = [(*head, *(f"{gpu}, us" for gpu in gpus)), ("---", "---", *["---:"] * 5, "---", *["---:"] * len(gpus))]
    for each in read_predictions():
        measured = []
        for run in runs:
            rows = [row for row in run["rows"] if (row["job"], row["variant"]) == (each["job"], each["variant"])]
            measured.append(f"{time_of(rows[0]) * 1e3:,.1f}" if rows else "")
        flops = f"{each['gflop']:.2g}" if each["gflop"] else ""
        numbers = (str(each["launches"]), f"{each['megabytes']:.3g}", flops, f"{each['megabytes'] / 3:.1f}")
        lines.append((each["job"], each["variant"], *numbers, f"{each['ms'] * 1e3:,.0f}", each["basis"], *measured))
    return ["| " + " | ".join(line) + " |" for line in lines]


def goals(rows: list[Row]) -> list[Row]:
    """Each goal, what was measured, and whether that reaches it. They were set for an H200."""
    found = []
    for job, variant, figure, sense, bound in GOALS:
        row = next((row for row in rows if (row["job"], row["variant"]) == (job, variant)), {})
        value = row.get(figure)
        reached = value is not None and (value >= bound if sense == "at least" else value <= bound)
        name = f"{job}, {variant.removeprefix('ours, ')}" if variant != "ours" else job
        found.append({"job": name, "figure": figure, "goal": f"{sense} {bound}", "is": value, "reached": reached})
    return found


def said(goal: Row) -> str:
    value = "not measured" if goal["is"] is None else f"{goal['is']:.3g}"
    figure = goal["figure"].replace("_", " ")
    return f"{goal['job']}, {figure}: {value}, goal {goal['goal']}: {'reached' if goal['reached'] else 'NOT REACHED'}"


def cell(row: Row, name: str, decimals: int) -> str:
    return f"{row[name]:,.{decimals}f}" if name in row else ""


def table(rows: list[Row]) -> list[str]:
    """Lines of markdown, which is read well enough on a terminal too."""
    head = ("job", "variant", "ms", "graph, ms", "predicted, ms", "GB/s", "floor")
    lines = [head, ("---", "---", *["---:"] * 5)]
    for row in rows:
        cells = (cell(row, "ms", 4), cell(row, "graph_ms", 4), cell(row, "predicted_ms", 3), cell(row, "gb_per_s", 0))
        failed = f" (failed: {row['failed']})" if "failed" in row else ""
        lines.append((row["job"], row["variant"] + failed, *cells, cell(row, "floor_ratio", 2)))
    return ["| " + " | ".join(line) + " |" for line in lines]


def read_steps(path: Path) -> list[Row]:
    """What tools/gpu.sh noted: a line per step, of name, outcome and detail with tabs between."""
    return [
        dict(zip(("step", "outcome", "detail"), line.split("\t"), strict=True))
        for line in path.read_text().splitlines()
    ]


def save(measurements: Row, steps: list[Row], folder: Path) -> Path:
    """Writes gpu-NAME.json and prints what it says."""
    rows = with_ratios(measurements["rows"])
    results = {**{name: value for name, value in measurements.items() if name != "rows"}, "steps": steps, "rows": rows}
    slug = re.sub(r"[^a-z0-9]+", "-", measurements["gpu"].lower()).strip("-")
    path = folder / f"gpu-{slug}.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join([*table(rows), *(said(goal) for goal in goals(rows))]))
    return path


def document(folder: Path) -> str:
    """Of every results file in the folder, a section."""
    parts = [INTRO]
    runs = [json.loads(path.read_text()) for path in sorted(folder.glob("gpu-*.json"))]
    for run in runs:
        build = run["build"]
        machine = (
            f"{run['multiprocessors']} multiprocessors, compute capability {run['compute_capability']}; {run['date']}; "
            f"torch {run['torch']}, CUDA {run['cuda']}, nvcc {build['cuda']} for {build['cuda_architectures']}, "
            f"Python {run['python']}, score_ext {run['score']}. Surprise, gather and compress: {run['shape']}; select "
            "and the sampling ops keep a tenth of their scores; tokens 3,584 wide are bfloat16, others float32."
        )
        steps = [f"- {step['step']}: {step['outcome']} ({step['detail']})" for step in run["steps"]]
        lines = [f"\n## {run['gpu']}\n", machine, "", *steps, "", *table(run["rows"]), ""]
        parts.append("\n".join([*lines, *(f"- {said(goal)}" for goal in goals(run["rows"]))]) + "\n")
    return "".join([*parts, SHORT_OF_GOALS, PREDICTED, "\n".join(predictions_table(runs)), "\n"])


def main() -> None:
    if len(sys.argv) not in (1, 3):
        sys.exit("usage: python bench/gpu/report.py [MEASUREMENTS.json STEPS.tsv]")
    results = ROOT / "bench" / "results"
    if len(sys.argv) == 3:
        measurements, steps = (Path(argument) for argument in sys.argv[1:])
        print(f"written: {save(json.loads(measurements.read_text()), read_steps(steps), results)}")
    (ROOT / "docs" / "gpu.md").write_text(document(results))
    print("written: docs/gpu.md")


if __name__ == "__main__":
    main()
