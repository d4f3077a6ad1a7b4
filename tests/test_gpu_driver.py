"""What of `make gpu` needs no GPU: how tools/gpu.sh refuses, and the results file."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import score_ext
from score_video.packed import PackedVideos

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
    assert "tools/gpu.sh [build] [test] [sanitize] [bench] [prefill]" in done.stdout
    assert "set -uo" not in done.stdout


def row(job: str, variant: str, ms: float, **more: Any) -> dict[str, Any]:
    return {"job": job, "variant": variant, "ms": ms, **more}


# A copy of 4 GB/ms; surprise at 90% of it; compress at 1.25 times its floor.
MEASUREMENTS = {
    "gpu": "NVIDIA Test (80 GB)",
    "torch": "2.13.0",
    "compute_capability": "9.0",
    "multiprocessors": 132,
    "date": "2026-11-26",
    "cuda": "13.0",
    "python": "3.12.3",
    "score": "0.2.0",
    "build": {"cuda": "13.0.88", "cuda_architectures": "90"},
    "shape": "few tokens",
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
        row("select, 40000", "ours, topk", 0.02, graph_ms=0.009),
    ],
}
STEPS = "1-build\tpassed\tscore_ext 0.1.0\n2-test\tFAILED\t1 failed, 300 passed\n"


def test_results_file_and_document(tmp_path: Path) -> None:
    """Run as tools/gpu.sh runs it, in a checkout of nothing else; without torch, as nothing here needs it."""
    shutil.copytree(ROOT / "bench/gpu", tmp_path / "bench/gpu")
    (tmp_path / "docs").mkdir()
    measurements, steps = tmp_path / "measurements.json", tmp_path / "steps.tsv"
    measurements.write_text(json.dumps(MEASUREMENTS))
    steps.write_text(STEPS)
    command = [sys.executable, "-S", str(tmp_path / "bench/gpu/report.py"), measurements, steps]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout

    results = json.loads((tmp_path / "bench/results/gpu-nvidia-test-80-gb.json").read_text())
    assert results["torch"] == "2.13.0"
    assert [step["outcome"] for step in results["steps"]] == ["passed", "FAILED"]
    rows = {(each["job"], each["variant"]): each for each in results["rows"]}
    assert rows["surprise", "ours"]["floor_ratio"] == pytest.approx(1 / 0.9)
    assert rows["surprise", "ours"]["gb_per_s"] == pytest.approx(3600)
    assert rows["surprise", "ours"]["faster_than_compile"] == pytest.approx(4)
    assert rows["surprise", "ours"]["predicted_ms"] > 0
    ours = rows["compress", "ours"]
    assert ours["floor_ratio"] == pytest.approx(1.25)
    assert ours["faster_than_compile"] == pytest.approx(4)  # than the fastest, both as graphs
    assert ours["faster_than_engine"] == pytest.approx(8)  # called from Python, as it cannot be captured
    assert "faster_than_eager" not in ours

    said = printed + (tmp_path / "docs/gpu.md").read_text()
    for line in (
        "surprise, floor ratio: 1.11, goal at most 1.2: reached",
        "gather, floor ratio: 1.33, goal at most 1.2: NOT REACHED",
        "compress, floor ratio: 1.25, goal at most 1.4: reached",
        "compress, faster than compile: 4, goal at least 3.0: reached",
        "compress, faster than engine: 8, goal at least 10.0: NOT REACHED",
        "select, 40000, topk, graph ms: 0.009, goal at most 0.015: reached",
        "select, 40000, systematic, graph ms: not measured, goal at most 0.03: NOT REACHED",
        "eager cosine (failed: out of memory)",
    ):
        assert said.count(line) == 2, line


def test_a_copy_counts_at_its_fastest() -> None:
    """A graph's copies can be slower than a kernel's: on the first GPU they were."""
    sys.path.insert(0, str(ROOT))
    from bench.gpu.report import with_ratios

    rows = with_ratios([row("copy", "torch", 0.5, graph_ms=0.8, bytes=2e9), row("gather", "ours", 1.0, bytes=1e9)])
    assert rows[0]["gb_per_s"] == pytest.approx(4000)
    assert rows[1]["floor_ratio"] == pytest.approx(4)


def test_what_was_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.gpu import timing

    timed: list[str] = []

    def measured(function: Any, inputs: Any, graph: bool) -> dict[str, float]:
        timed.append(function())
        return {"ms": 1.0}

    monkeypatch.setattr(timing, "measured", measured)
    run, path = {"gpu": "one", "date": "2026-11-26"}, tmp_path / "measurements.json"
    timing.Measurements(path, run).add("copy", "torch", lambda: "first", [()])
    later = timing.Measurements(path, {**run, "date": "2026-11-27"})
    later.add("copy", "torch", lambda: "again", [()])
    later.add("copy", "ours", lambda: "second", [()])
    timing.Measurements(path, {**run, "gpu": "another"}).add("copy", "torch", lambda: "elsewhere", [()])
    assert timed == ["first", "second", "elsewhere"]


def test_a_rival_that_does_something_else_is_not_timed(tmp_path: Path) -> None:
    from bench.gpu import rivals, timing

    to = timing.Measurements(tmp_path / "measurements.json", {})
    to.add("double", "torch", lambda x: x * 3, [(torch.ones(2),)], like=(lambda x: x * 2, rivals.close))
    assert to.disagree and "something else than ours" in to.rows[0]["failed"] and "ms" not in to.rows[0]


def test_the_rival_of_the_state_has_its_cosines() -> None:
    from bench.gpu import rivals

    torch.manual_seed(0)
    video = torch.randn(6, 3, 4, 32) + 0.5 * torch.randn(3, 4, 32) + 0.3
    videos = PackedVideos.from_frames([video])
    sizes = videos.cu_seqlens, videos.tokens_per_frame, videos.columns
    state = score_ext.relative_state(videos.tokens, *sizes)
    torch.testing.assert_close(rivals.cosines(video), rivals.cosines_of(state))


def test_the_rivals_of_divprune_and_thumbnails_do_the_same() -> None:
    from bench.gpu import rivals

    torch.manual_seed(0)
    tokens, pixels = torch.randn(400, 32), torch.rand(5, 3, 2, 14, 14)
    sizes = torch.tensor([0, 400], dtype=torch.int32), torch.tensor([40], dtype=torch.int32)
    rivals.nearly_the_same_indices(rivals.divprune(tokens), score_ext.divprune(tokens, *sizes, 40))
    with pytest.raises(AssertionError, match="other rows"):
        rivals.nearly_the_same_indices(torch.arange(40), score_ext.divprune(tokens, *sizes, 40))
    rivals.close(rivals.thumbnails(pixels), score_ext.thumbnails(pixels, 2, 2))


def test_the_rival_of_count_sketch_does_the_same() -> None:
    from bench.gpu import rivals

    tokens, signs = torch.randn(50, 512), score_ext.count_sketch(torch.eye(512), 512).diagonal()
    rivals.close(rivals.count_sketch(tokens, signs), score_ext.count_sketch(tokens, 128))


def test_every_prediction_is_of_a_job_that_is_timed() -> None:
    """As it is measured, or in the sources of what is to be: a job that is renamed would lose its prediction."""
    from bench.gpu.report import read_predictions

    measured = json.loads((ROOT / "bench/results/gpu-nvidia-h200.json").read_text())["rows"]
    jobs = {(row["job"], row["variant"]) for row in measured}
    names = ["divprune, 1296 x 384", "divprune, 8192 x 512", "diverse, 8192 x 512", "diverse, 40000 x 3584"]
    later = {(name, "ours") for name in (*names, "thumbnails, 40000 patches")}
    assert {(each["job"], each["variant"]) for each in read_predictions()} <= jobs | later


def test_bench_without_a_gpu_says_so() -> None:
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "bench.gpu", "unwritten.json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.strip() == "bench.gpu: needs a GPU and the CUDA kernels (SCORE_CUDA=ON)"


def test_no_error_text_of_the_ops_is_made_by_a_stream() -> None:
    """On the first GPU machine, whose compiler links its C++ library into ours, std::ostringstream << int64 crashed."""
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    assert len(sources) > 20
    assert [
        path.name for path in sources if re.search(r"#include <(sstream|iostream|ostream)>", path.read_text())
    ] == []
