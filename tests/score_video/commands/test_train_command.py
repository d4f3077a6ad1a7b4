"""``score train``: a run in a folder, from a file and flags; what is wrong with either in one line."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from score_video.cli import main
from score_video.commands.run_folder import RESULTS
from score_video.commands.train_config import parse_settings, read_config
from score_video.compressor import Compressor
from score_video.miniature.reader import Reader, ReaderConfig
from score_video.policy import SurprisePolicy
from score_video.rl.config import ScoreConfig


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder with a reader that nobody trained."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    Reader(ReaderConfig(tower_width=8, token_width=8, width=12, layers=1, heads=2)).save(
        tmp_path / "reader.safetensors"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


BASE: dict[str, Any] = {
    "environment_options": {"reader": "reader.safetensors"},
    "data": {"train": {"num_videos": 40}, "validation": {"num_videos": 5}},
    "policy": {"hidden_sizes": [8]},
    "training": {"per_device_train_batch_size": 2, "num_generations": 2, "max_steps": 4, "save_steps": 2},
}


def write(**sections: Any) -> str:
    Path("train.yaml").write_text(yaml.safe_dump({**BASE, **sections}))
    return "train.yaml"


def score(*arguments: str) -> int:
    return main(["train", *arguments])


def refused(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    before = sorted(Path.cwd().rglob("*"))
    capfd.readouterr()
    assert score(*arguments) == 2
    error = capfd.readouterr().err
    assert error.startswith("score: error: ")
    assert error.count("\n") == 1
    assert sorted(Path.cwd().rglob("*")) == before
    return error


def test_a_run_and_what_it_leaves(capfd: pytest.CaptureFixture[str]) -> None:
    config = write(training={**BASE["training"], "learning_rate": "1e-2", "report_to": "none", "logging_steps": 2})
    flags = ("--output-dir", "run", "--steps", "6", "--retention", "0.1", "--seed", "5", "--set", "sampling=counted")
    assert score("--config", config, *flags) == 0
    said = capfd.readouterr().out
    assert said.count("of 6: reward -") == 3
    assert "trained; on validation videos: reward -" in said
    names = {entry.name for entry in Path("run").iterdir()}
    assert names == {*RESULTS, "checkpoint-4", "checkpoint-6"}
    policy = SurprisePolicy.from_pretrained("run")
    assert policy.config.hidden_sizes == [8]
    saved = read_config(Path("run/train_config.yaml"))
    assert {key: saved[key] for key in ("environment_options", "data", "policy")} == {
        key: BASE[key] for key in ("environment_options", "data", "policy")
    }
    changed = {
        "max_steps": 6,
        "retention": 0.1,
        "seed": 5,
        "sampling": "counted",
        "learning_rate": 0.01,
        "num_iterations": 1,
    }
    assert {name: saved["training"][name] for name in changed} == changed
    assert "output_dir" not in saved["training"]


def test_a_run_behind_a_choice_before_the_tower() -> None:
    options = {**BASE["environment_options"], "before_tower": "evs-dithered:0.3"}
    policy = {**BASE["policy"], "use_seen": True}
    config = write(environment_options=options, policy=policy, training={**BASE["training"], "retention": 0.1})
    assert score("--config", config, "--output-dir", "gated") == 0
    made = Compressor.from_pretrained("gated")
    assert isinstance(made.method, SurprisePolicy) and made.method.config.behind_gate and made.method.config.use_seen
    assert made.before_tower is not None and (made.before_tower.method, made.before_tower.retention) == (
        "evs-dithered",
        0.3,
    )


def test_a_stopped_run_goes_on_by_its_folder_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    config = write()
    assert score("--config", config, "--output-dir", "whole") == 0
    with monkeypatch.context() as patch:
        patch.setattr("score_video.rl.checkpoint.keep_latest", _stop)
        assert score("--config", config, "--output-dir", "parts") == 1  # as a bug
    assert not Path("parts/model.safetensors").exists()
    assert score("--resume", "--output-dir", "parts") == 0
    assert Path("parts/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    # and where there is nothing yet, it begins
    assert score("--config", config, "--resume", "--output-dir", "new") == 0
    assert Path("new/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_a_run_that_is_made_longer_learns_from_its_first_step_on() -> None:
    """The shorter one ended with a rate of 0."""
    config = write()
    assert score("--config", config, "--output-dir", "longer", "--steps", "2", "--set", "save_steps=1") == 0
    assert score("--resume", "--output-dir", "longer", "--steps", "3") == 0
    before, after = (Path(f"longer/checkpoint-{n}/model.safetensors").read_bytes() for n in (2, 3))
    assert before != after


def _stop(*arguments: Any) -> None:
    raise ZeroDivisionError


def test_nothing_is_overwritten_unasked(capfd: pytest.CaptureFixture[str]) -> None:
    config = write()
    assert score("--config", config, "--output-dir", "run") == 0
    first = Path("run/model.safetensors").read_bytes()
    assert "run: exists and is not empty (--resume goes on with it" in refused(
        capfd, "--config", config, "--output-dir", "run"
    )
    assert score("--config", config, "--output-dir", "run", "--overwrite", "--seed", "1") == 0
    assert Path("run/model.safetensors").read_bytes() != first
    (Path("run") / "notes.txt").write_text("mine")
    assert "files that are not from here (notes.txt)" in refused(
        capfd, "--config", config, "--output-dir", "run", "--overwrite"
    )
    assert "not both" in refused(capfd, "--config", config, "--overwrite", "--resume")
    other = write(policy={"hidden_sizes": [9]})
    assert "policy must be what the run began with, {'hidden_sizes': [8]}" in refused(
        capfd, "--config", other, "--output-dir", "run", "--resume"
    )
    Path("else").mkdir()
    Path("else/notes.txt").write_text("mine")
    assert "is no run to resume" in refused(capfd, "--config", config, "--output-dir", "else", "--resume")


def test_a_curriculum_from_stills_to_videos() -> None:
    stages = [{"name": "pseudo_video", "steps": 2, "motion": "pan"}, {"name": "video", "data": "moving"}]
    train = {"pseudo_video": {"split": "static", "still": True, "num_videos": 8}, "moving": {"split": "plain"}}
    config = write(
        data={"train": train, "validation": {"num_videos": 2}}, training={**BASE["training"], "stages": stages}
    )
    assert score("--config", config, "--output-dir", "run") == 0


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({"enviroment": "miniature"}, "train.yaml: there is no 'enviroment'; did you mean environment"),
        (
            {"environment": "atari"},
            "environment: name 'atari' is not registered; the registered names",
        ),
        ({"environment": 3}, "environment must be a name, got 3"),
        ({"training": [1]}, "training must be a mapping, got [1]"),
        ({"training": {"num_generation": 4}}, "there is no 'num_generation'; did you mean num_generations"),
        ({"training": {"num_generations": "many"}}, "num_generations must be an integer, got 'many'"),
        ({"training": {"learning_rate": "fast"}}, "learning_rate must be a number, got 'fast'"),
        ({"training": {"bf16": 1}}, "bf16 must be true or false, got 1"),
        ({"training": {"sampling": None}}, "sampling must be a string, got None"),
        ({"training": {"retention": 2}}, "retention must be a number in (0, 1], got 2"),
        ({"policy": {"hiden_sizes": [8]}}, "policy: there is no 'hiden_sizes'; did you mean hidden_sizes"),
        ({"environment_options": {"raeder": "x"}}, "environment_options: there is no 'raeder'; did you mean reader"),
        ({"environment_options": {"before_tower": 0.3}}, "environment_options: before_tower must be NAME:RETENTION"),
        ({"environment_options": {"reader": "none"}}, "none: there are no weights of a reader"),
        ({"data": {"trian": {}}}, "data: there is no 'trian'; did you mean train"),
        ({"data": {"train": {"splitt": "plain"}}}, "data.train: there is no 'splitt'; did you mean split"),
        ({"data": {"train": {"partition": "test"}}}, "data.train: there is no 'partition'"),
        ({"data": {"validation": {"num_videos": 0}}}, "data.validation: num_videos must be at least 1, got 0"),
        ({"data": {"train": [3]}}, "data.train: must be a mapping, got [3]"),
    ],
)
def test_mistakes_in_the_file(capfd: pytest.CaptureFixture[str], sections: dict[str, Any], says: str) -> None:
    assert says in refused(capfd, "--config", write(**sections))


def test_mistakes_in_flags_and_files(capfd: pytest.CaptureFixture[str]) -> None:
    Path("bad.yaml").write_text("training:\n  sampling: [exact\npolicy: {}\n")
    assert "bad.yaml, line 3, column 7: not YAML" in refused(capfd, "--config", "bad.yaml")
    Path("list.yaml").write_text("- 1\n")
    assert "list.yaml: must be a mapping" in refused(capfd, "--config", "list.yaml")
    assert "none.yaml: there is no such configuration" in refused(capfd, "--config", "none.yaml")
    config = write()
    assert "--set must be name=value, got 'sampling'" in refused(capfd, "--config", config, "--set", "sampling")
    assert "--set sampling: not YAML" in refused(capfd, "--config", config, "--set", "sampling=[")
    assert "did you mean retention" in refused(capfd, "--config", config, "--set", "retentoin=0.1")


def test_every_setting_is_listed(capfd: pytest.CaptureFixture[str]) -> None:
    assert score("--settings") == 0
    said = capfd.readouterr().out
    assert "num_generations = 8\n" in said
    for name in vars(ScoreConfig)["__annotations__"]:
        assert f"{name} = " in said


@pytest.mark.parametrize("name", ["save_strategy", "eval_strategy", "logging_strategy"])
def test_yaml_s_no_is_the_setting_s_no(capfd: pytest.CaptureFixture[str], name: str) -> None:
    config = write(training={**BASE["training"], name: False})
    assert score("--config", config, "--output-dir", "run") == 0
    assert read_config(Path("run/train_config.yaml"))["training"][name] == "no"
    assert score("--config", write(), "--output-dir", "again", "--set", f"{name}=no") == 0
    assert f"{name} must be one of no, steps, epoch" in refused(capfd, "--config", config, "--set", f"{name}=yes")
    assert "bf16 must be true or false, got 'no'" in refused(capfd, "--config", config, "--set", 'bf16="no"')


@pytest.mark.parametrize("given", ["none", "null", "[]"])
def test_no_reporter(given: str) -> None:
    assert score("--config", write(), "--output-dir", "run", "--set", f"report_to={given}") == 0
    assert not Path("run/runs").exists()


def test_going_back_and_what_becomes_of_the_rest(capfd: pytest.CaptureFixture[str]) -> None:
    assert score("--config", write(), "--output-dir", "run") == 0
    before = {name: (Path("run") / name).read_bytes() for name in RESULTS}
    capfd.readouterr()
    assert score("--resume-from", "checkpoint-2", "--output-dir", "run") == 0
    assert "is in run/set-aside-1" in capfd.readouterr().out
    assert {name: (Path("run/set-aside-1") / name).read_bytes() for name in RESULTS} == before
    assert Path("run/set-aside-1/checkpoint-4").is_dir()
    # with the same settings it is the same run
    assert Path("run/model.safetensors").read_bytes() == before["model.safetensors"]
    assert score("--resume-from", "2", "--output-dir", "run", "--steps", "3") == 0
    assert Path("run/set-aside-2/checkpoint-4").is_dir()
    assert {path.name for path in Path("run").glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-3"}
    assert score("--config", write(), "--output-dir", "run", "--overwrite") == 0
    assert not list(Path("run").glob("set-aside-*"))
    assert "not both" in refused(capfd, "--resume-from", "2", "--overwrite", "--output-dir", "run")


@pytest.mark.parametrize("limit", [4_000, 20_000])
def test_a_full_disk(limit: int) -> None:
    """A limit on the size of files stands in for it: of torch's files, or of TensorBoard's; then there is room."""
    config = write(training={**BASE["training"], "logging_steps": 1}, policy={"hidden_sizes": [64, 64]})
    command = [sys.executable, "-m", "score_video.cli", "train", "--config", config, "--output-dir", "run"]
    assert score("--config", config, "--output-dir", "whole") == 0
    done = subprocess.run([*command, "--steps", "2"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first = Path("run/checkpoint-2/model.safetensors").read_bytes()
    done = subprocess.run(
        [*command, "--resume"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2
    assert done.stderr[done.stderr.index("score: error") :].count("\n") == 1 and "Traceback" not in done.stderr
    assert "File too large" in done.stderr and "run" in done.stderr
    if "checkpoint-4" in done.stderr:
        assert "checkpoint-2 is whole, and the run can be resumed from it" in done.stderr
    assert Path("run/checkpoint-2/model.safetensors").read_bytes() == first
    assert not list(Path("run").glob(".*"))
    assert score("--resume", "--output-dir", "run") == 0
    assert {path.name for path in Path("run").glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-4"}


def test_text_that_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    config = write()
    assert "must be text in UTF-8" in refused(capfd, "--config", config, "--set", "run_name=caf\udce9")
    assert "--set run_name: must be text" in refused(capfd, "--config", config, "--set", 'run_name="\\ud800"')
    Path("half.yaml").write_text('training: {run_name: "\\ud800"}\n')
    assert "half.yaml: must be text" in refused(capfd, "--config", "half.yaml")


def test_former_names_of_settings(capfd: pytest.CaptureFixture[str]) -> None:
    former = {**BASE["training"], "law": "counted", "compression": "linear"}
    with pytest.warns(DeprecationWarning, match="is now called") as warned:
        read = read_config(Path(write(training=former)))["training"]
    assert {str(warning.message) for warning in warned} >= {
        "law is now called sampling",
        "compression is now called compression_reward",
    }
    assert read == {**BASE["training"], "sampling": "counted", "compression_reward": "linear"}
    with pytest.warns(DeprecationWarning, match="law is now called sampling"):
        assert parse_settings(["law=exact"]) == {"sampling": "exact"}
    Path("both.yaml").write_text("training: {law: exact, sampling: counted}\n")
    says = "law is the former name of sampling: give sampling alone"
    assert f"both.yaml: training: {says}" in refused(capfd, "--config", "both.yaml")
    assert f"--set: {says}" in refused(capfd, "--set", "law=exact", "--set", "sampling=counted")
    # one overrides the other whatever either is called
    flags = ("--config", write(training=former), "--set", "sampling=bernoulli", "--output-dir", "run")
    capfd.readouterr()
    assert score(*flags, "--set", "compression=linear") == 0
    warned = [line for line in capfd.readouterr().err.splitlines() if "warning" in line]
    assert sorted(warned) == [  # each once, though the file and a flag have the first
        "score: warning: compression is now called compression_reward",
        "score: warning: law is now called sampling",
    ]
    saved = read_config(Path("run/train_config.yaml"))["training"]
    assert (saved["sampling"], saved["compression_reward"]) == ("bernoulli", "linear")


def test_an_environment_of_your_own(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """By package.module:name, as samplings, rewards and advantages are."""
    monkeypatch.syspath_prepend(str(here))
    (here / "my_world.py").write_text(
        "from score_video.commands.train import TrainingSetup\n"
        "from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos\n\n\n"
        "def make(options, data, settings):\n"
        '    videos = MiniatureVideos("plain", "train", options["seed"], 8)\n'
        "    environment = MiniatureEnvironment()\n"
        "    return TrainingSetup(environment, videos, None, environment.token_width, 0)\n"
    )
    own = {"environment": "my_world:make", "environment_options": {"seed": 3}, "data": {}}
    assert score("--config", write(**own), "--output-dir", "run") == 0
    assert yaml.safe_load(Path("run/train_config.yaml").read_text())["environment"] == "my_world:make"
    assert Compressor.from_pretrained("run").method.config.token_width == 64
    assert "my_world:gone" in refused(capfd, "--config", write(**{**own, "environment": "my_world:gone"}))
