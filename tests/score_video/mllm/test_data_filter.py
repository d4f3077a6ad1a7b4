"""``score data filter``: what is left needs the video, and what is not is told with its reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.videos import write_video
from PIL import Image

from score_video.cli import main
from score_video.mllm.environment import MllmEnvironment
from score_video.mllm.load import load_model, load_processor
from score_video.rl.data import load_examples
from score_video.rl.environment import Selection

OPTIONS = ["red", "green", "blue", "two", "a cat"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each option once as the right answer, so that the model, which does not care, is right for one of them."""
    folder = tmp_path / "data"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)
    write_video(folder / "a.mp4", list(noise))
    (folder / "broken.mp4").write_bytes(b"no video")
    Image.new("RGB", (40, 40), (9, 9, 9)).save(folder / "still.png")
    asked = [{"question": "Which?", "answer": option, "options": OPTIONS} for option in OPTIONS]
    rows: list[dict[str, Any]] = [
        {"video": "a.mp4", "id": "all", "questions": asked},
        {"video": "broken.mp4", "id": "broken", **asked[0]},
        {"image": "still.png", "id": "still", "questions": asked},
    ]
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


@pytest.mark.usefixtures("here")
def test_what_is_left_needs_the_video(tiny_qwen: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    arguments = ("--model", str(tiny_qwen), "--output", "out/left.jsonl", "--dropped", "gone.jsonl")
    assert main(["data", "filter", "data/train.jsonl", *arguments]) == 0
    assert "8 of 11 questions need the video, 1 cannot be read; 2 rows in out/left.jsonl" in capfd.readouterr().out
    left, gone = read("out/left.jsonl"), read("gone.jsonl")
    assert [(row["id"], len(row["questions"])) for row in left] == [("all", 4), ("still", 4)]
    assert [(row["id"], row["reason"]) for row in gone if row["id"] != "broken"] == [
        ("all", "answered without the video"),
        ("still", "answered without the video"),
    ]
    (broken,) = (row for row in gone if row["id"] == "broken")
    assert "broken.mp4" in broken["reason"]

    # it can be trained on, and the model alone says the same
    examples = load_examples("out/left.jsonl")
    assert len(examples) == 2 and Path(examples[0]["video"]).samefile("data/a.mp4")
    environment = MllmEnvironment(
        load_model(str(tiny_qwen), torch.device("cpu")), load_processor(str(tiny_qwen)), num_frames=2
    )
    for row, right in ((left[0], 0.0), (gone[0], 1.0)):
        for question in row["questions"]:
            batch = environment.encode([{"video": "data/a.mp4", "questions": [question]}])
            nothing = Selection(torch.zeros(0, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int32))
            assert float(environment.answer(batch, nothing).correct) == right


@pytest.mark.usefixtures("here")
def test_what_is_refused(tiny_qwen: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        (("data/train.jsonl", "--output", "x.jsonl", "--dropped", "./x.jsonl"), "must be two files"),
        (("data/train.jsonl", "--output", "nowhere/x.jsonl"), "nowhere/x.jsonl"),
        (("data/none.jsonl", "--output", "x.jsonl"), "none.jsonl: no such file"),
    ):
        capfd.readouterr()
        assert main(["data", "filter", *arguments, "--model", str(tiny_qwen)]) == 2
        assert says in capfd.readouterr().err
        assert not Path("x.jsonl").exists()
