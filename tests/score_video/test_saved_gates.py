"""Compressors whose files say what chooses before the tower: damaged and hostile ones."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from score_video import Compressor, SurprisePolicy, SurprisePolicyConfig
from score_video.errors import ScoreError, ScoreWarning

Config = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    gate = Compressor(SurprisePolicy(SurprisePolicyConfig(token_width=48)), 0.3)
    Compressor("divprune", 0.1, before_tower=gate, halo=1).save_pretrained(tmp_path / "gated")
    return tmp_path / "gated"


def edit(folder: Path, change: Callable[[Config], object]) -> Path:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    change(config["before_tower"])
    path.write_text(json.dumps(config))
    return path


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("token_width", "x", "token_width must be an integer, got 'x'"),
        ("token_width", -1, "token_width"),
        ("token_width", 10**15, "before_tower.safetensors holds the weights of another policy"),
        ("behind_gate", "yes", "behind_gate must be"),
        ("state", "nope", "state must be"),
        ("surprise", 1, "surprise"),
    ],
)
def test_a_bad_value_of_its_policy(name: str, value: object, says: str, folder: Path) -> None:
    """An error that names the file, whatever the value; nothing is allocated for what only a config says."""
    edit(folder, lambda gate: gate["policy"].update({name: value}))
    with pytest.raises(ScoreError, match=says) as caught:
        Compressor.from_pretrained(folder)
    assert str(folder) in str(caught.value)


def test_a_policy_that_is_wider_than_any_machine(tmp_path: Path) -> None:
    SurprisePolicy(SurprisePolicyConfig(token_width=4)).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "token_width": 10**15}))
    with pytest.raises(ScoreError, match="holds the weights of another policy"):
        SurprisePolicy.from_pretrained(tmp_path)


@pytest.mark.parametrize(("name", "value"), [("before_tower", "garbage"), ("halo", 0), ("halo", 1)])
def test_a_gate_in_a_gate(name: str, value: object, folder: Path) -> None:
    path = edit(folder, lambda gate: gate.update({name: value}))
    with pytest.raises(ScoreError, match=f"before_tower has an unknown key '{name}'") as caught:
        Compressor.from_pretrained(folder)
    assert str(path) in str(caught.value)


def test_nested_without_end(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' * 5000 + "1" + "}" * 5000)
    with pytest.raises(ScoreError, match=r"config\.json is not JSON"):
        Compressor.from_pretrained(folder)


def test_one_warning_for_one_loading(tmp_path: Path) -> None:
    policy = SurprisePolicy(SurprisePolicyConfig(state="relative"))
    with pytest.warns(ScoreWarning, match="was not trained behind a choice"):
        Compressor(policy, before_tower=Compressor("random", 0.3)).save_pretrained(tmp_path / "own")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Compressor.from_pretrained(tmp_path / "own")
    assert [one.category for one in caught] == [ScoreWarning]
