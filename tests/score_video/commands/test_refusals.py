"""After a command that is refused, everything is byte for byte what it was: for every command."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.readers import tiny_reader
from helpers.snapshots import snapshot
from helpers.videos import write_video
from PIL import Image
from tensorboard.summary.writer.record_writer import RecordWriter

from score_video.cli import main
from score_video.errors import ScoreError
from score_video.miniature import environment as miniature
from score_video.rl.trainer import ScoreTrainer
from score_video.testing import save_tiny_model

TRAINING = {"per_device_train_batch_size": 2, "num_generations": 2, "max_steps": 4, "save_steps": 2}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video, questions, a run that is done, one that is half done, and a result of each command."""
    folder = tmp_path_factory.mktemp("made")
    torch.set_num_threads(1)
    tiny_reader().save(folder / "reader.safetensors")
    noise = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    write_video(folder / "clip.mp4", list(noise))
    (folder / "broken.mp4").write_bytes(b"no video")
    Image.fromarray(noise[0]).save(folder / "still.png")
    asked = {"question": "A or B?", "answer": "A", "options": ["A", "B"]}
    for name in ("clip", "broken"):
        (folder / f"{name}.jsonl").write_text(json.dumps({"video": f"{name}.mp4", **asked}))
    config = {
        "environment_options": {"reader": "reader.safetensors"},
        "data": {"train": {"num_videos": 8}, "validation": {"num_videos": 2}},
        "policy": {"hidden_sizes": [8]},
        "training": TRAINING,
    }
    (folder / "train.yaml").write_text(yaml.safe_dump(config))
    options = {"model": "model", "num_frames": 4, "cache_dir": "features"}
    data = {"train": "broken.jsonl"}
    mllm = {**config, "environment": "mllm", "environment_options": options, "data": data}
    (folder / "mllm.yaml").write_text(yaml.safe_dump(mllm))
    save_tiny_model(folder / "model", "qwen2_5_vl")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(miniature, "shipped_reader", lambda: folder / "reader.safetensors")
        assert main(["train", "--config", "train.yaml", "--output-dir", "run"]) == 0
        assert main(["compress", "clip.mp4", "--frames", "2", "--out", "compressed"]) == 0
        assert main(["eval", "--split", "plain", "--videos", "2", "--json", "eval.json"]) == 0
        assert main(["demo", "--steps", "1", "--videos", "2", "--out", "demo"]) == 0
    shutil.copytree(folder / "run", folder / "damaged")
    weights = folder / "damaged" / "checkpoint-4" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    shutil.copytree(folder / "run", folder / "foreign")
    (folder / "foreign" / "notes.txt").write_text("mine")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where the command runs."""
    shutil.copytree(made, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(miniature, "shipped_reader", lambda: tmp_path / "here" / "reader.safetensors")
    return tmp_path / "here"


RESUME = ["train", "--resume", "--output-dir", "run", "--steps", "6"]
NEW = ["train", "--config", "train.yaml", "--output-dir", "new/deep"]
AGAIN = ["train", "--config", "train.yaml", "--output-dir", "run", "--overwrite"]
COMPRESS = ["compress", "clip.mp4", "--out", "compressed"]

REFUSED: dict[str, tuple[list[str], str]] = {
    "train: other settings": ([*RESUME, "--set", "learning_rate=0.5"], "learning_rate must be what the run began with"),
    "train: another optimiser": ([*RESUME, "--set", "optim=sgd"], "optim must be what the run began with"),
    "train: another precision": ([*RESUME, "--set", "bf16=true"], "bf16 must be what the run began with"),
    "train: warm-up": ([*RESUME, "--set", "warmup_steps=2"], "warmup_steps must be what the run began with"),
    "train: betas": ([*RESUME, "--set", "adam_beta1=0.8"], "adam_beta1 must be what the run began with"),
    "train: a wrong setting": ([*RESUME, "--set", "retention=7"], "retention must be a number in (0, 1]"),
    "train: stages that do not fit": ([*RESUME, "--set", "stages=[{name: video, steps: 9}]"], "stages must"),
    "train: a damaged checkpoint": (
        ["train", "--resume", "--output-dir", "damaged"],
        "model.safetensors: is damaged (not what was written); resume from an older checkpoint (checkpoint-2)",
    ),
    "train: no such checkpoint": (
        ["train", "--resume-from", "checkpoint-3", "--output-dir", "run"],
        "there is no checkpoint 'checkpoint-3'; there are checkpoint-2, checkpoint-4",
    ),
    "train: an older one, other settings": (
        ["train", "--resume-from", "2", "--output-dir", "run", "--seed", "1"],
        "seed must be what the run began with",
    ),
    "train: nothing to resume": (["train", "--resume", "--output-dir", "new"], "there is no run to resume"),
    "train: something is there": (["train", "--output-dir", "run"], "--resume goes on with it, --overwrite replaces"),
    "train: something else is there": (["train", "--output-dir", "model"], "files that are not from here"),
    "train: not only a run": (["train", "--output-dir", "foreign", "--overwrite"], "not from here (notes.txt)"),
    "train: new, and wrong": ([*NEW, "--set", "lr_scheduler_kwargs={foo: 1}"], "lr_scheduler_kwargs"),
    "train: new, without a package": ([*NEW, "--set", "optim=adamw_bnb_8bit"], "optim"),
    "train: new, without a reporter": ([*NEW, "--set", "report_to=wandb"], "report_to: what wandb needs"),
    "train: over another, and wrong": ([*AGAIN, "--set", "optim_args=foo"], "optim"),
    "compress: something is there": (COMPRESS, "exists and is not empty (--overwrite replaces it)"),
    "compress: no such video": (["compress", "gone.mp4", "--out", "compressed", "--overwrite"], "gone.mp4"),
    "compress: a broken video": (["compress", "broken.mp4", "--out", "compressed", "--overwrite"], "broken.mp4"),
    "compress: a wrong option": ([*COMPRESS, "--overwrite", "--retention", "2"], "retention"),
    "compress: something else is there": ([*COMPRESS[:-1], "run", "--overwrite"], "not from here"),
    "eval: no such policy": (["eval", "--policy", "gone", "--json", "eval.json"], "gone"),
    "eval: a wrong option": (["eval", "--retention", "2", "--json", "eval.json"], "retention"),
    "eval: a place that is none": (["eval", "--json", "gone/eval.json"], "gone/eval.json"),
    "demo: something is there": (["demo", "--out", "demo"], "exists and is not empty"),
    "demo: something else is there": (["demo", "--out", "run", "--overwrite"], "not from here"),
    "demo: a reader before it is seen that there is no room": (
        ["demo", "--out", "run", "--from-scratch", "--reader", "new.safetensors"],
        "not from here",
    ),
    "data check: no such file": (["data", "check", "gone.jsonl", "--json", "eval.json"], "gone.jsonl"),
    "data check: a wrong option": (["data", "check", "clip.jsonl", "--frames", "0"], "frames"),
}


def refused(here: Path, capfd: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    before = snapshot(here)
    capfd.readouterr()
    assert main(arguments) == 2
    said = capfd.readouterr().err
    line = said[said.index("score: error: ") :]
    assert line.count("\n") == 1 and line.endswith("\n")
    assert snapshot(here) == before
    return line


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_changes(here: Path, capfd: pytest.CaptureFixture[str], name: str) -> None:
    arguments, says = REFUSED[name]
    assert says in refused(here, capfd, arguments)


needs_torchvision = pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision: make test has it")


@needs_torchvision
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["gone.mp4", "What?", "--model", "model"], "gone.mp4"),
        (["broken.mp4", "What?", "--model", "model"], "broken.mp4"),
        (["clip.mp4", "What?", "--model", "gone"], "gone: is neither a folder nor"),
        (["clip.mp4", " ", "--model", "model"], "the question must not be empty"),
    ],
)
def test_nothing_changes_by_a_question(
    here: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    Path("pictures").mkdir()
    Path("pictures/contact.png").write_bytes(b"earlier")
    more = ["--pictures", "pictures", "--overwrite", "--json", "eval.json"]
    said = refused(here, capfd, ["ask", *arguments, *more])
    assert says in said and "pictures" not in said and "eval.json" not in said  # nothing is wrong with these


@needs_torchvision
@pytest.mark.parametrize("output", ["new", "run"])
def test_a_run_that_fails_in_its_first_step(here: Path, capfd: pytest.CaptureFixture[str], output: str) -> None:
    overwrite = ["--overwrite"] if output == "run" else []
    said = refused(here, capfd, ["train", "--config", "mllm.yaml", "--output-dir", output, *overwrite])
    assert "step 1: row 1 of the training data: broken.mp4: not a video file" in said
    assert "skip_broken" in said and "score data check" in said


@needs_torchvision
@pytest.mark.parametrize("output", ["new", "run"])
def test_tensorboard_writes_nothing_after_a_failure(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """Its thread, on a slow disk, has still to write when the step fails."""
    write = RecordWriter.write

    def slowly(writer: RecordWriter, data: bytes) -> None:
        time.sleep(0.5)
        write(writer, data)

    monkeypatch.setattr(RecordWriter, "write", slowly)
    before = snapshot(here)
    overwrite = ["--overwrite"] if output == "run" else []
    refused(here, capfd, ["train", "--config", "mllm.yaml", "--output-dir", output, *overwrite])
    assert not [thread for thread in threading.enumerate() if "event_file_writer" in type(thread).__module__]
    assert snapshot(here) == before


def fails(*arguments: Any, **options: Any) -> None:
    raise ScoreError("failed")


@pytest.mark.parametrize("when", ["_encode", "evaluate"])
def test_a_run_that_goes_on_and_fails(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """In its first step; or, where no step is left, in the evaluation."""
    monkeypatch.setattr(ScoreTrainer, when, fails)
    if when == "evaluate":
        Path("run/trainer_state.json").unlink()  # what the first process of a run leaves that failed there
    refused(here, capfd, ["train", "--resume", "--output-dir", "run", "--steps", "6" if when == "_encode" else "4"])
    assert snapshot(here)


@pytest.mark.parametrize("flags", [[], ["--steps", "3"], ["--config", "train.yaml"]])
def test_a_finished_run_is_left_as_it_is(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, flags: list[str]
) -> None:
    """It says so, and changes nothing: no evaluation, no result written again."""
    for method in ("train", "evaluate"):
        monkeypatch.setattr(ScoreTrainer, method, fails)
    before = snapshot(here), {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    assert main(["train", "--resume", "--output-dir", "run", *flags]) == 0
    assert capfd.readouterr().out.startswith("run: the run is finished (4 steps), and nothing was changed: --steps")
    assert (snapshot(here), {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}) == before


def test_another_setting_of_a_finished_run_is_refused(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = refused(here, capfd, ["train", "--resume", "--output-dir", "run", "--set", "learning_rate=0.5"])
    assert "learning_rate must be what the run began with" in said


@pytest.mark.parametrize("resume", [["--resume"], ["--resume-from", "checkpoint-2"]])
def test_what_was_refused_can_be_done_rightly(here: Path, capfd: pytest.CaptureFixture[str], resume: list[str]) -> None:
    refused(here, capfd, [*RESUME, "--set", "learning_rate=0.5"])
    assert main(["train", *resume, "--output-dir", "run", "--steps", "6"]) == 0
    assert {path.name for path in Path("run").glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-6"}


def test_what_fails_after_a_step_keeps_what_it_has(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A video of the evaluation that cannot be read does not cost the policy."""
    evaluate: Callable[..., Any] = ScoreTrainer.evaluate
    monkeypatch.setattr(ScoreTrainer, "evaluate", fails)
    assert main([*NEW, "--set", "report_to=none"]) == 2
    names = {"config.json", "model.safetensors", "train_config.yaml"}
    assert {path.name for path in Path("new/deep").iterdir()} == {*names, "checkpoint-2", "checkpoint-4"}
    monkeypatch.setattr(ScoreTrainer, "evaluate", evaluate)
    assert main(["train", "--resume", "--output-dir", "new/deep"]) == 0
    assert Path("new/deep/trainer_state.json").is_file()
