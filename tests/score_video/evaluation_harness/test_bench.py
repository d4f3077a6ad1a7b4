"""``score bench`` on the real harness. What it makes of results is in tests/score_video/benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from score_ext.budget import keep_count
from score_video.cli import main

pytest.importorskip("lmms_eval", reason="tools/eval.sh has lmms-eval")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def test_the_real_harness(saved_qwen: Path, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also that its command finds the model by the entry point. It exits with 0 where a compressor does not exist."""
    out = tmp_path / "out"
    file = tmp_path / "bench.yaml"
    file.write_text(
        f"model: {saved_qwen}\ntask: own\ninclude_path: {task}\nlimit: 2\nretention: 0.25\n"
        "model_args: max_num_frames=4,min_pixels=3136\ncompressor: [uniform, resize, nowhere]\n",
        encoding="utf-8",
    )
    command = ["bench", "--config", str(file), "--output", str(out)]
    assert main(command) == 1
    assert "nowhere" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    (error,) = report["errors"]
    assert (error["compressor"], "wrote no results" in error["error"]) == ("nowhere", True)
    whole, row, resized = report["rows"]
    assert whole["questions"] == row["questions"] == whole["videos"] == 2
    keep = keep_count(2, int(row["tokens"]) // 2, 0.25)
    assert row["kept"] == keep
    assert 0.5 * keep < resized["kept"] <= keep
    assert resized["tokens"] == row["tokens"]
    assert row["difference"] is not None
    with Image.open(out / "report.png") as picture:
        assert picture.format == "PNG"
    assert "| uniform | 25% |" in (out / "report.md").read_text(encoding="utf-8")

    half = next(out.glob("*uniform*")).rglob("*_results.json")
    file_of_results = next(half)
    file_of_results.write_text(file_of_results.read_text(encoding="utf-8")[:100], encoding="utf-8")
    assert main([*command, "--compressor", "uniform"]) == 0
    said = capsys.readouterr().err
    assert said.count("is there") == 1  # all tokens; what was half written is run again
    assert "uniform" in said
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["rows"][1]["kept"] == keep


def test_dry_run_names_the_tasks_data(saved_qwen: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    command = ["bench", "--model", str(saved_qwen), "--task", "mvbench", "--task", "egoschema_subset", "--dry-run"]
    assert main([*command, "--output", str(tmp_path), "--model-args", "max_num_frames=2"]) == 0
    said = capsys.readouterr().out
    assert "data of mvbench: OpenGVLab/MVBench: 0.0 GB in the cache" in said
    assert "data of egoschema_subset: lmms-lab/egoschema" in said or "egoschema_subset: " in said
    assert "4500 questions" in said
