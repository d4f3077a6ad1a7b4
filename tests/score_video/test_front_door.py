"""What is exported, how little it costs to get there, and the README's path from training to serving."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.videos import write_video

import score_video
import score_video.rl
from score_video import Compressor
from score_video.cli import main
from score_video.serving.setting import engine_compressor


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("module", [score_video, score_video.rl])
def test_all_that_is_named_is_there(module: Any) -> None:
    for name in module.__all__:
        assert getattr(module, name) is not None, name
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", score_video.__version__)


@pytest.mark.parametrize("name", ["saved_policy", "relative_state", "change", "clip"])
def test_former_modules_warn(name: str) -> None:
    code = f"import warnings; warnings.simplefilter('error'); import score_video.{name}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert f"FormerNameWarning: score_video.{name} is now score_video." in done.stderr


def test_nothing_is_loaded_before_it_is_used() -> None:
    loaded = "import sys; print([m for m in ('torch', 'numpy', 'transformers', 'av') if m in sys.modules])"
    assert python(f"import score_video; {loaded}") == "[]"
    for option in ("--version", "--help"):
        run = f"import sys; sys.argv = ['score', {option!r}]; from score_video.cli import main; main([{option!r}])"
        assert python(f"{run}; {loaded}").splitlines()[-1] == "[]"


def test_choosing_tokens_needs_no_transformers() -> None:
    code = """
import sys, torch
from score_video import Compressor, PackedVideos
videos = PackedVideos.from_frames([torch.randn(4, 3, 3, 8)])
for compressor in (Compressor(), Compressor("evs"), Compressor.from_pretrained("pretrained")):
    compressor.select(videos)
print([name for name in ("transformers", "huggingface_hub", "av") if name in sys.modules])
"""
    assert python(code) == "[]"


@pytest.mark.parametrize(
    "what", ["import score_video", "import sys; from score_video.cli import main; main(['--version'])"]
)
def test_it_is_quick(what: str) -> None:
    """Processor time beside that of Python alone; with a wide margin."""
    timed = "import time; start = time.process_time(); {}; print(time.process_time() - start)"
    assert min(float(python(timed.format(what)).splitlines()[-1]) for _ in range(3)) < 1.5


def test_from_training_to_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], saved_qwen: Path
) -> None:
    """The README's path: train, evaluate, load, ask, serve, each by the folder's name."""
    monkeypatch.chdir(tmp_path)
    Path("train.yaml").write_text(
        "data: {train: {num_videos: 8}, validation: {num_videos: 2}}\npolicy: {state: relative}\n"
    )
    few = ["--set", "per_device_train_batch_size=2", "--set", "num_generations=2", "--set", "eval_retention=0.2"]
    assert main(["train", "--config", "train.yaml", "--output-dir", "run", "--steps", "2", *few]) == 0
    assert main(["eval", "--policy", "run", "--split", "plain", "--videos", "4", "--json", "eval.json"]) == 0
    assert "the policy run" in json.loads(Path("eval.json").read_text())["evaluated"]
    compressor = Compressor.from_pretrained("run")
    assert (compressor.retention, compressor.selection_used) == (0.2, "diverse")
    assert Compressor.from_pretrained("run/checkpoint-2", retention=0.5).retention == 0.5
    clip = str(write_video(tmp_path / "clip.mp4", 8))
    assert main(["compress", clip, "--policy", "run", "--out", "kept"]) == 0
    assert json.loads(Path("kept/summary.json").read_text())["retention"]["asked"] == 0.2
    asked = ["ask", clip, "What happens?", "--model", str(saved_qwen), "--policy", "run", "--json", "answer.json"]
    assert main([*asked, "--frames", "4", "--max-new-tokens", "2"]) == 0, capfd.readouterr().err
    assert json.loads(Path("answer.json").read_text())["decides"] == "run"
    assert engine_compressor("run").retention == 0.2


def test_a_bug_keeps_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], clip: Path
) -> None:
    """A ValueError that is not the user's is a bug, too; numpy raises them."""

    def broken(*args: object, **kwargs: object) -> None:
        raise ValueError("operands could not be broadcast")

    monkeypatch.setattr(importlib.import_module("score_video.commands.compress"), "to_patches", broken)
    monkeypatch.chdir(clip.parent)
    assert main(["compress", str(clip), "--out", "bug"]) == 1
    line = capfd.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("score: bug: ValueError: operands could not be broadcast")
    file = re.search(r"the traceback is in (\S+):", line)
    assert file is not None
    assert "in broken" in Path(file[1]).read_text()
    Path(file[1]).unlink()
    monkeypatch.setenv("SCORE_DEBUG", "1")
    assert main(["compress", str(clip), "--out", "bug"]) == 1
    assert "Traceback" in capfd.readouterr().err
    assert not (clip.parent / "bug").exists()


def test_a_users_mistake_is_one_line(capfd: pytest.CaptureFixture[str], clip: Path) -> None:
    assert main(["compress", str(clip), "--retention", "2"]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("score: error: retention must be above 0")


def test_a_rule_of_your_own_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], clip: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("my_rules.py").write_text(
        "class Loudest:\n    def scores(self, videos):\n        return videos.tokens.norm(dim=1)\n\nnothing = 3\n"
    )
    for method in ("norm", "my_rules:Loudest"):
        out = method.partition(":")[0]
        assert main(["compress", str(clip), "--method", method, "--frames", "3", "--out", out]) == 0
    kept = [json.loads(Path(name, "summary.json").read_text())["kept_per_frame"] for name in ("norm", "my_rules")]
    assert kept[0] == kept[1]
    assert main(["eval", "--method", "my_rules:Loudest", "--videos", "2", "--split", "plain"]) == 0
    capfd.readouterr()
    for method, said in (("my_rules:gone", "cannot be imported"), ("my_rules:nothing", "an object with scores()")):
        assert main(["compress", str(clip), "--method", method, "--out", "refused"]) == 2
        assert said in capfd.readouterr().err
