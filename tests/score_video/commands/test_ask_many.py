"""``score ask`` about a video that is compressed once: one question after another, files of questions, saved videos."""

from __future__ import annotations

import io
import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.videos import write_video

import score_video.mllm.compressed_video
from score_video.cli import main
from score_video.policy import SurprisePolicyConfig
from score_video.testing import save_tiny_model

pytestmark = pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision: make test has it")

QUESTIONS = ["What happens in this video?", "Which way does it go?", "What happens in this video?"]
OPTIONS = ("--frames", 6, "--max-new-tokens", 8, "--retention", 0.3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny_model(folder, "qwen2_5_vl")
    return folder


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frames = np.random.default_rng(0).integers(0, 256, (12, 112, 168, 3), dtype=np.uint8)
    return write_video(tmp_path_factory.mktemp("clip") / "noise.mp4", list(frames), size=(168, 112))


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


def ask(*arguments: object) -> int:
    return main(["ask", *map(str, arguments)])


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    before = sorted(Path.cwd().rglob("*"))
    assert ask(*arguments) == 2
    error = capfd.readouterr().err
    assert error.startswith("score: error: ") and error.count("\n") == 1
    assert sorted(Path.cwd().rglob("*")) == before
    return error


def write_questions(*more: dict[str, Any]) -> Path:
    lines = [{"id": number, "question": question} for number, question in enumerate(QUESTIONS)]
    Path("asked.jsonl").write_text("\n".join(map(json.dumps, [*lines, *more])) + "\n\n")
    return Path("asked.jsonl")


def singly(video: Path, model: Path, question: str) -> dict[str, Any]:
    """The answer of ``score ask VIDEO QUESTION``."""
    assert ask(video, question, "--model", model, *OPTIONS, "--json", "one.json") == 0
    answer: dict[str, Any] = json.loads(Path("one.json").read_text())["compressed"]
    return answer


def test_files_of_questions(model: Path, video: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = write_questions()
    assert ask(video, "--model", model, *OPTIONS, "--questions", asked, "--output", "said.jsonl") == 0
    out = capfd.readouterr().out
    assert re.search(
        r"^\d+ of \d+ visual tokens kept \(decode .* ms, vision tower .* ms, compression .* ms\)$", out, re.M
    )
    assert re.search(r"^3 answers, [\d.]+ ms each$", out, re.M)
    said = [json.loads(line) for line in Path("said.jsonl").read_text().splitlines()]
    assert [line["id"] for line in said] == [0, 1, 2]
    for line in said:
        one = singly(video, model, line["question"])
        for name in ("answer", "visual_tokens", "prompt_tokens", "new_tokens"):
            assert line[name] == one[name]
    assert list(said[0]["milliseconds"]) == ["prompt", "video", "prefill"]
    assert list(said[1]["milliseconds"]) == ["prompt", "prefill"]
    assert said[0]["answer"] == said[2]["answer"]
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["asked.jsonl", "one.json", "said.jsonl"]


@pytest.mark.parametrize("name", ["mme.json", "mme.jsonl"])
def test_what_the_fields_files_ask_about_the_video(
    model: Path, video: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    row = {"question": "Which?", "options": ["A. a dog", "B. a cat"], "answer": "B"}
    rows = [{"videoID": videoID, "question_id": videoID, **row} for videoID in ("another", video.stem)]
    Path(name).write_text(json.dumps(rows) if name.endswith("json") else "\n".join(map(json.dumps, rows)))
    arguments = (video, "--model", model, *OPTIONS, "--questions", name)
    assert "asks nothing about" in refused(capfd, *arguments)
    assert ask(*arguments, "--media", video.parent, "--output", "said.jsonl") == 0
    (line,) = [json.loads(line) for line in Path("said.jsonl").read_text().splitlines()]
    assert (line["id"], line["expected"], line["options"]) == (video.stem, "B", ["A", "B"])
    assert line["answer"] == singly(video, model, line["question"])["answer"]
    assert "--media needs --questions" in refused(capfd, video, "What?", "--model", model, "--media", ".")


def test_from_the_standard_input(
    model: Path, video: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(["", *QUESTIONS]) + "\n"))
    assert ask(video, "--model", model, *OPTIONS) == 0
    out = capfd.readouterr().out
    assert (
        len(
            re.findall(r"^  first token after [\d.]+ ms: prompt [\d.]+ \+ prefill [\d.]+, then .* tokens/s$", out, re.M)
        )
        == 2
    )
    assert len(re.findall(r"^  first token after [\d.]+ ms: prompt [\d.]+ \+ video [\d.]+ \+ prefill ", out, re.M)) == 1
    answer = singly(video, model, QUESTIONS[1])["answer"]
    shown = "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in answer)
    assert shown.strip() in out


def test_a_saved_video(
    model: Path, video: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = write_questions()
    several = ("--questions", asked, "--output")
    assert ask(video, "--model", model, *OPTIONS, *several, "said.jsonl", "--save", "kept.safetensors") == 0

    def forbidden(*given: Any, **others: Any) -> Any:
        raise AssertionError("neither frames nor the vision tower are needed")

    monkeypatch.setattr("score_video.commands.ask_many.compress_video", forbidden)
    monkeypatch.setattr("score_video.video.read_frames", forbidden)
    assert ask("kept.safetensors", "--model", model, *several, "again.jsonl", "--max-new-tokens", 8) == 0
    assert "visual tokens kept (read " in capfd.readouterr().out
    first, again = (
        [json.loads(line)["answer"] for line in Path(name).read_text().splitlines()]
        for name in ("said.jsonl", "again.jsonl")
    )
    assert first == again
    assert ask("kept.safetensors", QUESTIONS[0], "--model", model, "--max-new-tokens", 8) == 0
    capfd.readouterr()
    for option, value in (
        ("--retention", 0.5),
        ("--method", "divprune"),
        ("--before-tower", "random:0.4"),
        ("--frames", 8),
        ("--size", 100),
        ("--policy", "pretrained"),
    ):
        error = refused(capfd, "kept.safetensors", QUESTIONS[0], "--model", model, option, value)
        assert f"{option} is for a video file: what kept.safetensors keeps was decided when it was saved" in error
    about = json.loads(score_video.mllm.compressed_video.read_tensors(Path("kept.safetensors"))[1]["about"])
    assert about["retention"] == 0.3 and about["video"] == "noise.mp4" and "before_tower" not in about


@pytest.mark.parametrize("rule", ["surprise", "surprise-l2", "evs"])
def test_behind_rules_that_want_two_frames(rule: str, model: Path, video: Path) -> None:
    """What goes through everything first, unmeasured, is too short for them; the video is not."""
    options = ("--method", "divprune", "--retention", 0.3, "--before-tower", f"{rule}:0.7", "--halo", 1)
    several = ("--questions", write_questions(), "--output", "said.jsonl", "--save", "kept.safetensors")
    assert ask(video, "--model", model, "--frames", 6, "--max-new-tokens", 2, *options, *several) == 0
    about = json.loads(score_video.mllm.compressed_video.read_tensors(Path("kept.safetensors"))[1]["about"])
    assert about["before_tower"] == {"method": rule, "retention": 0.7, "halo": 1}


def test_a_saved_video_of_another_model(
    model: Path, video: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ask(video, "What?", "--model", model, *OPTIONS, "--save", "kept.safetensors") == 0
    save_tiny_model(tmp_path / "other", "qwen2_5_vl", layers=3)
    capfd.readouterr()
    error = refused(capfd, "kept.safetensors", "What?", "--model", tmp_path / "other")
    assert "must be of the model it is asked with: it was made with" in error and str(model) in error
    Path("bad.safetensors").write_bytes(b"no")
    assert "bad.safetensors is no compressed video, or is damaged" in refused(
        capfd, "bad.safetensors", "What?", "--model", model
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--compare",), "--compare is for one question about a video file"),
        (("--pictures", "seen"), "--pictures is for one question"),
        (("--json", "one.json"), "--json is for one question"),
        (("--output", "said.jsonl"), "--output needs --questions"),
        (("--questions", "none.jsonl"), "none.jsonl"),
        (("--save", "kept.bin"), "--save must be a name that ends with .safetensors, got kept.bin"),
        (("--save", "no/kept.safetensors"), "no/kept.safetensors: the folder it should be made in does not exist"),
        (("a question", "--questions", "asked.jsonl"), "give a question or --questions, not both"),
        (("a question", "--output", "said.jsonl"), "--output needs --questions"),
    ],
)
def test_options_that_cannot_be(
    model: Path, video: Path, capfd: pytest.CaptureFixture[str], more: tuple[object, ...], said: str
) -> None:
    write_questions()
    assert said in refused(capfd, video, *more, "--model", model)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("no JSON", "asked.jsonl:1: must be a JSON object, got "),
        ('"text"', 'asked.jsonl:1: must have a "question" that is text and not empty, got None'),
        ('{"question": " "}', "asked.jsonl:1: must have a .* got ' '"),
        ("", "asked.jsonl must hold questions, one JSON object a line, and is empty"),
    ],
)
def test_questions_that_cannot_be(
    model: Path, video: Path, capfd: pytest.CaptureFixture[str], line: str, said: str
) -> None:
    Path("asked.jsonl").write_text(line)
    assert re.search(said, refused(capfd, video, "--questions", "asked.jsonl", "--model", model))


def test_a_policy_that_looks_at_the_question(model: Path, video: Path, capfd: pytest.CaptureFixture[str]) -> None:
    from score_video.policy import SurprisePolicy

    SurprisePolicy(SurprisePolicyConfig(token_width=64, hidden_sizes=[8], question_width=64)).save_pretrained("asker")
    assert "selector must not look at the question" in refused(
        capfd, video, "--model", model, "--policy", "asker", "--questions", write_questions()
    )


def test_an_answer_that_fails_leaves_no_file(model: Path, video: Path, capfd: pytest.CaptureFixture[str]) -> None:
    asked = write_questions({"question": "What of <|video_pad|> this?"})
    error = refused(capfd, video, "--model", model, *OPTIONS, "--questions", asked, "--output", "said.jsonl")
    assert "prompt must have one placeholder for a video, got 2" in error
