"""What of `make gpu` needs no GPU: how tools/gpu.sh refuses, and the results file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def gpu_sh(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **environment}
    command = ["bash", str(ROOT / "tools/gpu.sh"), *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        ((), {}, "no GPU here"),
        (("bench",), {}, "no GPU here"),
        (("build", "everything"), {}, "there is no step 'everything'"),
        ((), {"PYTHON": "/no/such/python"}, "there is no '/no/such/python'"),
    ],
)
def test_one_line_says_why_nothing_is_done(arguments: tuple[str, ...], environment: dict[str, str], said: str) -> None:
    done = gpu_sh(*arguments, **environment)
    assert done.returncode == 1
    assert done.stdout == ""
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_help() -> None:
    done = gpu_sh("--help")
    assert done.returncode == 0
    assert "tools/gpu.sh [build] [test] [sanitize] [bench]" in done.stdout
    assert "set -uo" not in done.stdout


def row(job: str, variant: str, ms: float, **more: Any) -> dict[str, Any]:
    return {"job": job, "variant": variant, "ms": ms, **more}


# A copy of 4 GB/ms; surprise at 90% of it; compress at 1.25 times its floor.
MEASUREMENTS = {
    "gpu": "NVIDIA Test (80 GB)",
    "torch": "2.13.0",
    "rows": [
        row("copy", "torch", 1.1, graph_ms=1.0, bytes=4_000_000_000),
        row("surprise", "ours", 0.2, graph_ms=0.1, bytes=360_000_000),
        row("surprise", "compile cosine, default", 0.5, graph_ms=0.4, bytes=360_000_000),
        row("gather", "ours", 0.2, graph_ms=0.1, bytes=300_000_000),
        row("compress", "ours", 0.2, graph_ms=0.1, bytes=320_000_000),
        row("compress", "compile cosine, default", 0.9, graph_ms=0.8, bytes=320_000_000),
        row("compress", "compile sums, default", 0.5, graph_ms=0.4, bytes=320_000_000),
        row("compress", "engine rule", 1.6, bytes=320_000_000),
        {"job": "compress", "variant": "eager cosine", "failed": "out of memory"},
    ],
}
STEPS = "1-build\tpassed\tscore_ext 0.1.0\n2-test\tFAILED\t1 failed, 300 passed\n"


def test_results_file(tmp_path: Path) -> None:
    measurements, steps = tmp_path / "measurements.json", tmp_path / "steps.tsv"
    measurements.write_text(json.dumps(MEASUREMENTS))
    steps.write_text(STEPS)
    command = [sys.executable, str(ROOT / "bench/gpu_report.py"), measurements, steps, tmp_path / "results"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    results = json.loads((tmp_path / "results/gpu-nvidia-test-80-gb.json").read_text())
    assert results["torch"] == "2.13.0"
    assert [step["outcome"] for step in results["steps"]] == ["passed", "FAILED"]
    rows = {(each["job"], each["variant"]): each for each in results["rows"]}
    assert rows["surprise", "ours"]["bandwidth_ratio"] == pytest.approx(0.9)
    assert rows["surprise", "ours"]["gb_per_s"] == pytest.approx(3600)
    assert rows["surprise", "ours"]["faster_than_compile"] == pytest.approx(4)
    ours = rows["compress", "ours"]
    assert ours["floor_ratio"] == pytest.approx(1.25)
    assert ours["faster_than_compile"] == pytest.approx(4)  # than the fastest, both as graphs
    assert ours["faster_than_engine"] == pytest.approx(8)  # called from Python, as it cannot be captured
    assert "faster_than_eager" not in ours
    reached = {(goal["job"], goal["figure"]): goal["reached"] for goal in results["goals"]}
    assert reached == {
        ("surprise", "bandwidth_ratio"): True,
        ("gather", "bandwidth_ratio"): False,
        ("compress", "floor_ratio"): True,
        ("compress", "faster_than_compile"): True,
        ("compress", "faster_than_engine"): False,
    }
    assert "compress faster_than_engine: 8.00, goal at least 10.0: NOT REACHED" in printed
    assert "failed: out of memory" in printed


def test_bench_without_a_gpu_says_so() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(ROOT / "bench/gpu.py"), "unwritten.json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.strip() == "bench/gpu.py: needs a GPU and the CUDA kernels (SCORE_CUDA=ON)"
