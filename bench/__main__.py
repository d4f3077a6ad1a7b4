"""``python -m bench``: runs the CPU benchmarks, keeps the results as JSON and writes the table in docs/."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

import score_ext
from bench.table import page
from score_video.provenance import circumstances

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results" / "cpu.json"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
STATISTICS = ("min", "median", "iqr", "max", "rounds")


def machine() -> str:
    """The machine, date and versions that the figures hold for; no host name."""
    made = circumstances("torch")
    compiler = score_ext.build_info()["compiler"]
    return (
        f"{made['cpu']}, {torch.get_num_threads()} cores; {made['date']}; torch {made['torch']}, "
        f"Python {made['python']}, {compiler}, score_ext {made['score']}"
    )


def run(*command: str) -> str:
    return subprocess.run([sys.executable, *command], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        run("-m", "pytest", "bench/test_cpu.py", "-p", "no:cacheprovider", "--benchmark-enable",
            "--benchmark-disable-gc", f"--benchmark-json={raw}")  # fmt: skip
        benchmarks = json.loads(raw.read_text())["benchmarks"]
    results = {
        "machine": machine(),
        "memory": json.loads(run("-m", "bench.memory")),
        "benchmarks": [
            {"group": row["group"], "name": row["name"], "stats": {key: row["stats"][key] for key in STATISTICS}}
            for row in benchmarks
        ],
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    DOCUMENT.write_text(page(results))
    print(DOCUMENT.read_text())
    print(f"written: {RESULTS.relative_to(ROOT)}, {DOCUMENT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
