"""The plugins' setting: what it may be, and what no engine can use. Without vLLM; and that unset it loads nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from engines import save_policy

from score_video.before_tower import WHOLE_FIRST_FRAME
from score_video.compressor import PRETRAINED, SELECTIONS, AdaptiveRetention, Compressor
from score_video.methods import METHODS
from score_video.packed import PackedVideos
from score_video.policy import SurprisePolicy
from score_video.serving.setting import VARIABLE, engine_compressor, read_setting


@pytest.mark.parametrize("name", METHODS)
def test_a_method_s_name(name: str) -> None:
    assert engine_compressor(name).method == name
    assert engine_compressor(name).selection is None


def test_the_policy_of_the_package() -> None:
    policy = engine_compressor(PRETRAINED).method
    assert isinstance(policy, SurprisePolicy)
    assert policy.config.state == "relative"


def test_a_saved_compressor(tmp_path: Path) -> None:
    folder = save_policy(tmp_path / "policy", state="relative")
    assert isinstance(engine_compressor(str(folder)).method, SurprisePolicy)


def test_a_saved_compressor_of_every_selection(tmp_path: Path) -> None:
    """Whatever ``from_pretrained`` takes: the last looks at tokens too, and keeps as many as the engine says."""
    for number, selection in enumerate(SELECTIONS):
        Compressor("surprise", selection=selection).save_pretrained(tmp_path / selection)
        loaded = engine_compressor(str(tmp_path / selection))
        assert loaded.selection == selection
        videos = PackedVideos.from_frames([torch.randn(3, 2, 2, 8)])
        assert len(loaded.select(videos, keep=[5 + number]).index) == 5 + number


def test_a_folder_called_like_a_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Compressor("norm", selection="systematic").save_pretrained("surprise")
    assert engine_compressor("surprise").method == "surprise"
    assert engine_compressor("./surprise").method == "norm"


@pytest.mark.parametrize("setting", ["no-such-thing", "/no/such/folder", " surprise"])
def test_refuses_what_names_nothing(setting: str) -> None:
    with pytest.raises(ValueError, match=f"{VARIABLE} must be a folder or a hub id .* surprise, .*got '{setting}'"):
        engine_compressor(setting)


def test_refuses_a_damaged_compressor(tmp_path: Path) -> None:
    folder = save_policy(tmp_path / "policy", state="relative")
    (folder / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=rf"{VARIABLE} must be .*model.safetensors is damaged"):
        engine_compressor(str(folder))


@pytest.mark.parametrize(
    ("config", "retention", "message"),
    [
        ({}, AdaptiveRetention(0.1, 0.5), "is adaptive, but the engine fixes the count"),
        ({"question_width": 8}, 0.1, "needs the question, but the engine caches the tokens of a video"),
    ],
)
def test_refuses_what_an_engine_cannot_use(
    tmp_path: Path, config: dict[str, Any], retention: Any, message: str
) -> None:
    folder = save_policy(tmp_path / "policy", state="relative", **config)
    policy = Compressor.from_pretrained(folder).method
    Compressor(policy, retention).save_pretrained(folder)
    with pytest.raises(ValueError, match=f"{VARIABLE}: .*{message}"):
        engine_compressor(str(folder))


def test_a_choice_before_the_tower(tmp_path: Path) -> None:
    Compressor("divprune", 0.1, before_tower=Compressor("evs-dithered", 0.3), halo=1).save_pretrained(tmp_path / "one")
    loaded = engine_compressor(str(tmp_path / "one"))
    assert loaded.gate is not None and (loaded.gate.name, loaded.gate.halo) == ("evs-dithered", 1)


@pytest.mark.parametrize("rule", WHOLE_FIRST_FRAME)
def test_refuses_first_frames_before_the_tower(tmp_path: Path, rule: str) -> None:
    Compressor("divprune", 0.1, before_tower=Compressor(rule, 0.3)).save_pretrained(tmp_path / "one")
    with pytest.raises(ValueError, match=f"{VARIABLE}: before_tower of .* must not be '{rule}', which keeps the whole"):
        engine_compressor(str(tmp_path / "one"))


def test_reads_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert read_setting() == ""
    monkeypatch.setenv(VARIABLE, "norm")
    assert read_setting() == "norm"


def test_not_set_the_plugin_imports_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    code = "import sys; before = set(sys.modules); from score_video.serving.vllm_plugin import register; register(); "
    code += "new = {name.split('.')[0] for name in set(sys.modules) - before}; print(sorted(new & {'torch', 'vllm'}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
