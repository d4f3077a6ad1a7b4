"""``score eval --environment mllm``: rules beside each other on one's own questions, every figure of what was said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.videos import write_video

from score_ext.budget import keep_count
from score_video import Compressor
from score_video.cli import main
from score_video.mllm.environment import MllmEnvironment
from score_video.mllm.load import load_model, load_processor
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.rl.environment import Selection
from score_video.statistics import ratio_error

FRAMES = 4
QUESTIONS = [
    {"question": "What runs? A or B", "answer": "B", "options": ["A", "B"]},
    {"question": "Which colour?", "answer": "red", "options": ["red", "green", "blue"]},
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Six clips, five with one question and one with two."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 6, 32, 32, 3), dtype=np.uint8)
    rows: list[dict[str, Any]] = []
    for number, frames in enumerate(noise):
        write_video(tmp_path / f"{number}.mp4", list(frames))
        asked = {"questions": QUESTIONS} if number == 3 else QUESTIONS[number % 2]
        rows.append({"video": f"{number}.mp4", "id": f"clip {number}", **asked})
    (tmp_path / "test.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def score(tiny_qwen: Path, *arguments: object) -> int:
    base = ("eval", "--environment", "mllm", "--model", tiny_qwen, "--data", "test.jsonl", "--frames", FRAMES)
    return main([*map(str, base), *map(str, arguments)])


@pytest.mark.usefixtures("here")
def test_every_figure_is_of_what_the_model_answers(tiny_qwen: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rules = ("--method", "evs", "--method", "random", "--seed", 3)
    assert score(tiny_qwen, *rules, "--retention", "0.25,0.5", "--json", "out.json") == 0
    said = capfd.readouterr().out
    assert "test.jsonl: 7 questions about 6 videos" in said and "all tokens" in said
    report = json.loads(Path("out.json").read_text())
    assert (report["videos"], report["questions"], report["frames"], report["model"]) == (6, 7, FRAMES, str(tiny_qwen))
    assert [(row["rule"], row["retention"]) for row in report["rows"]] == [
        ("all tokens", 1.0), ("evs", 0.25), ("evs", 0.5), ("random", 0.25), ("random", 0.5),
    ]  # fmt: skip

    # once more by hand, a video at a time
    environment = MllmEnvironment(
        load_model(str(tiny_qwen), torch.device("cpu")), load_processor(str(tiny_qwen)), num_frames=FRAMES
    )
    compressor = Compressor("evs", retention=0.25)
    right, asked, log_prob = [], [], 0.0
    for number, line in enumerate(Path("test.jsonl").read_text().splitlines()):
        questions = QUESTIONS if number == 3 else [QUESTIONS[number % 2]]
        batch = environment.encode([{"video": json.loads(line)["video"], "questions": questions}])
        selected = compressor.select(batch.videos)
        outcome = environment.answer(batch, Selection(selected.index, selected.keep[None]))
        length = int(batch.videos.lengths)
        sample = report["samples"][number]
        assert (sample["id"], sample["tokens"], sample["questions"]) == (f"clip {number}", length, len(questions))
        assert sample["results"][1]["kept"] == keep_count(length, 1, 0.25) == int(selected.keep)
        right.append(float(outcome.correct) * len(questions))
        assert sample["results"][1]["right"] == pytest.approx(right[-1])
        asked.append(len(questions))
        log_prob += float(outcome.log_prob) * len(questions)
    row, full = report["rows"][1], report["rows"][0]
    assert row["accuracy"] == pytest.approx(sum(right) / 7)
    assert row["log_prob"] == pytest.approx(log_prob / 7, abs=1e-5)
    of_full = [sample["results"][0]["right"] for sample in report["samples"]]
    difference = torch.tensor(right) - torch.tensor(of_full)
    assert (
        row["difference"]
        == pytest.approx(float(difference.sum()) / 7)
        == pytest.approx(row["accuracy"] - full["accuracy"])
    )
    assert row["difference_error"] == pytest.approx(ratio_error(difference, torch.tensor(asked)))
    assert full["kept"] == full["tokens"] and full["difference"] == 0


@pytest.mark.usefixtures("here")
def test_policies_and_one_that_sees_the_question(tiny_qwen: Path) -> None:
    torch.manual_seed(0)
    SurprisePolicy(SurprisePolicyConfig(token_width=64)).save_pretrained("own")
    SurprisePolicy(SurprisePolicyConfig(token_width=64, question_width=64)).save_pretrained("asks")
    assert score(tiny_qwen, "--policy", "own", "--method", "pretrained", "--json", "both.json") == 0
    rows = json.loads(Path("both.json").read_text())["rows"]
    assert [row["rule"] for row in rows] == ["all tokens", "own", "pretrained policy"]
    assert score(tiny_qwen, "--policy", "asks", "--json", "asks.json") == 0
    report = json.loads(Path("asks.json").read_text())
    assert report["questions"] == 7 and len(report["samples"]) == 7  # one question each


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--method", "evs", "--method", "evs"], "--method must name each rule once, got evs twice"),
        (["--method", "oracle"], "oracle"),
        (["--split", "plain"], "--split is for the miniature"),
        (["--policy", "narrow"], "the policy is for tokens of width 8, the model's have 64"),
        (["--dtype", "int8"], "there is no dtype 'int8'"),
        (["--media", "gone"], "there is no such folder of media"),
    ],
)
def test_what_is_refused(tiny_qwen: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    SurprisePolicy(SurprisePolicyConfig(token_width=8)).save_pretrained("narrow")
    capfd.readouterr()
    assert score(tiny_qwen, *arguments) == 2
    assert says in capfd.readouterr().err


def test_options_of_the_other_environment(capfd: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        (["--environment", "mllm"], "--environment mllm needs --model"),
        (["--environment", "mllm", "--model", "x"], "--environment mllm needs --data"),
        (["--environment", "moon"], "--environment must be miniature or mllm, got 'moon'"),
        (["--data", "x"], "--model, --data and --media are for --environment mllm"),
        (["--method", "evs", "--method", "norm"], "--method can be given once on the miniature"),
    ):
        capfd.readouterr()
        assert main(["eval", *arguments]) == 2
        assert says in capfd.readouterr().err
