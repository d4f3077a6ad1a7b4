"""``score bench``: what it runs, what it makes of results, and the real harness under it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from score_ext.budget import keep_count
from score_video.cli import main
from score_video.commands.bench import FULL, Run, Settings, make_report, markdown, plan, read_results
from score_video.errors import ScoreError

SETTINGS = Settings(("own",))


def write_results(folder: Path, right: list[int], kept: int | None, logged: int | None = None) -> None:
    """As lmms-eval writes them, with a log of the first ``logged`` samples."""
    place = folder / "some__model"
    place.mkdir(parents=True)
    metrics = {"alias": "own", "accuracy,none": sum(right) / len(right), "accuracy_stderr,none": "N/A"}
    count = {"own": {"original": len(right), "effective": len(right)}}
    results = {"results": {"own": metrics}, "n-samples": count}
    (place / "20261126_1_results.json").write_text(json.dumps(results), encoding="utf-8")
    record: dict[str, Any] = {"batch": 1, "milliseconds": {"read": 2.0, "prefill": 8.0}}
    record |= {} if kept is None else {"kept": kept, "tokens": 100}
    lines = [
        json.dumps({"doc_id": number, "accuracy": value, "token_counts": [{"score": record}]}) + "\n"
        for number, value in enumerate(right)
    ]
    (place / "20261126_1_samples_own.jsonl").write_text("".join(lines[:logged]), encoding="utf-8")


def test_paired_differences(tmp_path: Path) -> None:
    full, some = Run("m", FULL, None), Run("m", "evs", 0.1)
    write_results(tmp_path / "full", [1, 1, 0, 1], None)
    write_results(tmp_path / "some", [1, 0, 0, 1], 10)
    results = {full: read_results(tmp_path / "full"), some: read_results(tmp_path / "some")}
    report = make_report([full, some], results, {}, SETTINGS)
    whole, row = report["rows"]
    assert (whole["accuracy"], whole["difference"], whole["kept"]) == (0.75, None, None)
    assert (row["accuracy"], row["difference"], row["kept"], row["tokens"]) == (0.5, -0.25, 10, 100)
    assert row["share_of_full"] == pytest.approx(2 / 3)
    assert row["difference_error"] == pytest.approx(0.25)  # sd of 0, -1, 0, 0 is 0.5; by the root of 4
    assert row["milliseconds"] == {"read": 2.0, "prefill": 8.0}
    assert "| m | own | evs | 10% | 10 | 50.0 | -25.0 ± 25.0 | 66.7 | 2.0 |" in markdown(report)


def test_runs_that_do_not_count(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match="lmms-eval wrote no results"):
        read_results(tmp_path)
    write_results(tmp_path, [1, 0, 1], 10, logged=2)
    with pytest.raises(ScoreError, match="task own has 2 samples of 3 in its log"):
        read_results(tmp_path)


def test_plan() -> None:
    runs = plan(["a", "b"], ["evs", "divprune"], [0.1, 0.2])
    assert len(runs) == 2 * (1 + 4)
    assert [run.retention for run in runs if run.compressor == FULL] == [None, None]
    other = Settings(("own",), "max_num_frames=8")
    folders = {run.folder(settings, Path("out")) for run in runs for settings in (SETTINGS, other)}
    assert len(folders) == 2 * len(runs)
    for compressors, wrong in ((["evs", "evs"], "got evs twice"), (["a,b"], "no comma"), ([FULL], "got none")):
        with pytest.raises(ScoreError, match=wrong):
            plan(["a"], compressors, [0.1])


def test_dry_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["bench", "--model", "m", "--task", "own", "--task", "other", "--output", str(tmp_path / "out")]
    assert main([*arguments, "--compressor", "evs", "--limit", "2", "--dry-run"]) == 0
    full, some = (shlex.split(line) for line in capsys.readouterr().out.splitlines())
    assert "pretrained=m,compressor=none" in full
    assert "pretrained=m,compressor=evs,retention=0.1" in some
    assert some[some.index("--tasks") + 1] == "own,other"
    assert not (tmp_path / "out").exists()


def test_the_real_harness(
    saved_qwen: Path, task: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also that its command finds the model by the entry point. It exits with 0 where a compressor does not exist."""
    pytest.importorskip("lmms_eval", reason="tools/eval.sh has lmms-eval")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    out = tmp_path / "out"
    command = ["bench", "--model", str(saved_qwen), "--task", "own", "--include-path", str(task), "--limit", "2"]
    command += ["--output", str(out), "--model-args", "max_num_frames=4,min_pixels=3136", "--retention", "0.25"]
    assert main([*command, "--compressor", "uniform", "--compressor", "nowhere"]) == 1
    assert "nowhere" in capsys.readouterr().out
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    (error,) = report["errors"]
    assert (error["compressor"], "wrote no results" in error["error"]) == ("nowhere", True)
    whole, row = report["rows"]
    assert whole["samples"] == row["samples"] == 2
    assert row["kept"] == keep_count(2, int(row["tokens"]) // 2, 0.25)
    assert row["difference"] is not None

    assert main([*command, "--compressor", "uniform"]) == 0  # nothing is run again
    assert capsys.readouterr().err.count("is there") == 2
