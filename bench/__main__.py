"""``python -m bench``: runs the CPU benchmarks, keeps them as this machine's, and writes the tables of all machines.

``python -m bench --page`` writes the tables alone, from what is kept.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

import score_ext
from bench.table import page
from score_video import Compressor
from score_video.provenance import circumstances

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
DOCUMENT = ROOT / "docs" / "benchmarks.md"
STATISTICS = ("min", "median", "iqr", "max", "rounds")


def machine() -> dict[str, str | int]:
    """The machine, date and versions that the figures hold for; no host name."""
    made = circumstances("torch")
    return {
        **made,
        "cores": torch.get_num_threads(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "compiler": score_ext.build_info()["compiler"],
        "selection": str(Compressor().selection_used),
    }


def file_of(facts: dict[str, str | int]) -> Path:
    """Where results of a machine are kept: a later run on one of its kind replaces them. Vectors are part of the kind:
    virtual machines call processors of several generations "AMD EPYC"."""
    name = re.sub(r"\(r\)|\(tm\)", "", f"{facts['cpu']}-{facts['vectors']}-{facts['cores']}-cores".lower())
    return RESULTS / f"cpu-{re.sub('[^a-z0-9]+', '-', name).strip('-')}.json"


def kept() -> list[dict[str, Any]]:
    """The results of every machine, by the names of their files."""
    return [json.loads(path.read_text()) for path in sorted(RESULTS.glob("cpu-*.json"))]


def run(*command: str) -> str:
    return subprocess.run([sys.executable, *command], cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout


def measure() -> Path:
    """Runs the benchmarks; returns the file that now has the results."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.json"
        files = "bench/test_cpu.py", "bench/test_relative.py", "bench/test_divprune.py"
        options = "--benchmark-enable", "--benchmark-disable-gc", f"--benchmark-json={raw}"
        run("-m", "pytest", *files, "-p", "no:cacheprovider", *options)
        benchmarks = json.loads(raw.read_text())["benchmarks"]
    facts = machine()
    results = {
        "machine": facts,
        "memory": json.loads(run("-m", "bench.memory")),
        "benchmarks": [
            {"group": row["group"], "name": row["name"], "stats": {key: row["stats"][key] for key in STATISTICS}}
            for row in benchmarks
        ],
    }
    path = file_of(facts)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")
    return path


def main() -> None:
    written = [DOCUMENT] if sys.argv[1:] == ["--page"] else [measure(), DOCUMENT]
    DOCUMENT.write_text(page(kept()))
    print(DOCUMENT.read_text())
    print("written:", ", ".join(str(path.relative_to(ROOT)) for path in written))


if __name__ == "__main__":
    main()
