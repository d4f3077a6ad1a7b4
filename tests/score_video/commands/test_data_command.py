"""``score data check``: what is broken is found ahead, all of it, and named by its row."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from helpers.videos import write_video
from PIL import Image

from score_video.cli import main
from score_video.rl.data import load_examples

ASKED = {"question": "What moves?", "answer": "a dog"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_video(tmp_path / "a.mp4", 8)
    (tmp_path / "cut.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:300])
    (tmp_path / "empty.mp4").touch()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:700])
    return tmp_path


def write(name: str, *rows: object) -> str:
    Path(name).write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return name


def media(*names: str) -> list[dict[str, str]]:
    return [{"video" if name.endswith("mp4") else "image": name, **ASKED} for name in names]


def check(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[str]]:
    capfd.readouterr()
    status = main(["data", "check", *arguments])
    output = capfd.readouterr()
    assert output.err == ""
    return status, output.out.splitlines()


def test_nothing_is_broken(capfd: pytest.CaptureFixture[str]) -> None:
    status, said = check(capfd, write("good.jsonl", *media("a.mp4", "a.jpg", "a.mp4")), "--frames", "4")
    assert status == 0
    assert said == ["reading", "nothing is broken: 3 rows, 2 videos and images, 4 frames of each"]


def test_everything_that_is_broken_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    rows = [*media("a.mp4", "cut.mp4"), "", *media("cut.jpg", "gone.mp4", "cut.mp4"), "{x", {"video": "a.mp4"}]
    half = {"video": "a.mp4", "question": "\ud800", "answer": "b"}
    first, second = write("first.jsonl", *rows, half), write("second.jsonl", *media("empty.mp4", "a.jpg"))
    status, said = check(capfd, first, second, "--json", "report.json", "--workers", "2")
    assert status == 1
    starts = [
        "first.jsonl, line 2: cut.mp4: not a video file",
        "first.jsonl, line 4: cut.jpg: image file is truncated",
        "first.jsonl, line 5: video gone.mp4: no such file",
        "first.jsonl, line 6: cut.mp4: not a video file",
        "first.jsonl, line 7: column 2: not JSON",
        "first.jsonl, line 8: 'question' is missing",
        "first.jsonl, line 9: 'question' must be text",
        "second.jsonl, line 1: empty.mp4: the file is empty",
    ]
    assert all(line.startswith(start) for line, start in zip(said[1:-1], starts, strict=True))
    assert said[-1] == "8 of 10 rows cannot be used: 10 rows, 5 videos and images, 16 frames of each"
    report = json.loads(Path("report.json").read_text())
    assert [entry["file"] for entry in report["broken"]][:2] == ["cut.mp4", "cut.jpg"]
    assert (report["rows"], report["files"], len(report["broken"])) == (10, 5, 8)


def test_images_in_their_rows(capfd: pytest.CaptureFixture[str]) -> None:
    table = load_examples(write("good.jsonl", *media("a.jpg", "a.jpg")))
    images = [{"bytes": Path(name).read_bytes(), "path": None} for name in ("a.jpg", "cut.jpg")]
    rows = [{**row, "image": image} for row, image in zip(table.remove_columns("image"), images, strict=True)]
    datasets.Dataset.from_list(rows, features=table.features).to_parquet("images.parquet")
    status, said = check(capfd, "images.parquet")
    assert status == 1
    assert said[1].startswith("images.parquet, row 2: its image: image file is truncated")
    assert len(said) == 3


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gone.jsonl"], "gone.jsonl: no such file"),
        (["a.jpg"], "a.jpg: must be a file (.jsonl, .json, .csv, .parquet)"),
        (["empty.jsonl"], "empty.jsonl: is empty"),
        (["bad.parquet"], "bad.parquet: cannot be read as a data set: "),
        (["good.jsonl", "--frames", "0"], "frames must be at least 1, got 0"),
        (["good.jsonl", "--workers", "0"], "--workers"),
        (["good.jsonl", "--json", "gone/report.json"], "gone/report.json: the folder"),
        ([], "FILE..."),
    ],
)
def test_what_is_refused(capfd: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    write("good.jsonl", *media("a.mp4"))
    write("empty.jsonl", "")
    Path("bad.parquet").write_bytes(b"no parquet")
    capfd.readouterr()
    assert main(["data", "check", *arguments]) == 2
    error = capfd.readouterr().err
    assert error.startswith("score: error: ") and error.count("\n") == 1
    assert says in error
