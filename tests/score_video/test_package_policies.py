"""The command that makes the policies of the package, on features made up here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.made_up_features import TOWER, made_up, save_behind_gate, save_features

from score_video.composite import train_policy as module
from score_video.composite.reader import Reader, ReaderConfig
from score_video.errors import ScoreError
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.policy import SurprisePolicy
from score_video.policy.pretrained import BEHIND_GATE, PRETRAINED
from score_video.rl.environment import Selection

READERS = Path(__file__).parents[2] / "evaluation" / "readers"


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of twenty videos; the package's recipes are of these and have next to no steps."""
    torch.manual_seed(0)
    Reader(ReaderConfig(6, TOWER, width=12, layers=1, heads=2)).save(tmp_path / "reader.safetensors")
    monkeypatch.setattr(module, "shipped_reader", lambda: tmp_path / "reader.safetensors")
    folder = tmp_path / "features"
    save_features(folder, "policy", made_up())
    for name, source in (("PRETRAINED", PRETRAINED), ("BEHIND_GATE", BEHIND_GATE)):
        recipe = json.loads((source / "recipe.json").read_text())
        assert recipe["composite"]["tower"] == "0ef29dd25baf80e8"  # DINOv2's, as the package's reader says
        recipe["composite"] |= {"tower": TOWER, "videos": 20}
        recipe["settings"].update(max_steps=4, per_device_train_batch_size=4, num_generations=2)
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.json").write_text(json.dumps(recipe))
        monkeypatch.setattr(module, name, tmp_path / name)
        for gate in filter(None, recipe["composite"]["gates"]):
            save_behind_gate(folder / gate, "policy", made_up(), kept=0.3, seen=0.3)
    return folder


@pytest.mark.parametrize("behind_gate", [False, True])
def test_the_recipes_make_policies(behind_gate: bool, features: Path, tmp_path: Path) -> None:
    module.main(features, READERS, tmp_path / "policy", behind_gate)
    made = SurprisePolicy.from_pretrained(tmp_path / "policy").config
    assert made == SurprisePolicy.from_pretrained(BEHIND_GATE if behind_gate else PRETRAINED).config
    assert (made.state, made.behind_gate, made.use_seen) == ("relative", behind_gate, behind_gate)
    assert (tmp_path / "policy" / "recipe.json").is_file()


def test_worlds_take_turns(features: Path) -> None:
    """A round: one batch of each of the miniature's readers, the rest of the composite world's videos, each in turn."""
    recipe = module.read_recipe(behind_gate=False)
    environments = module.environments_of(recipe, features, READERS)
    ours, miniature = recipe["composite"]["turns"], len(recipe["miniature"])
    assert [isinstance(one, MiniatureEnvironment) for one in environments] == [True] * miniature + [False] * ours
    data = MiniatureVideos("plain", "train", 0, 10_000)
    last = environments[-1]
    assert isinstance(last, module.ByNumber)
    turns = miniature + ours
    batch = last.encode([data[turns - 1], data[turns * 23 + turns - 1]])
    expected = last.environment.encode([{"number": 0}, {"number": 3}])
    torch.testing.assert_close(batch.videos.tokens, expected.videos.tokens)
    everything = Selection(torch.arange(len(batch.videos.tokens)), batch.videos.lengths[None])
    answered = last.answer(batch, everything).log_prob
    torch.testing.assert_close(answered, last.environment.answer(expected, everything).log_prob)


def test_other_readers_are_refused(features: Path, tmp_path: Path) -> None:
    (tmp_path / "readers").mkdir()
    for name in ("tower-1", "tower-3"):
        shutil.copy(READERS / "tower-2.safetensors", tmp_path / "readers" / f"{name}.safetensors")
    with pytest.raises(ScoreError, match=r"not in .*readers \(name@SHA-256\): tower-1@f43dd46c70a2, tower-3@9cd581"):
        module.main(features, tmp_path / "readers", tmp_path / "policy")
    assert not (tmp_path / "policy").exists()


def test_another_tower_is_refused(features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = module.read_recipe(behind_gate=False)
    recipe["composite"]["tower"] = "fedcba9876543210"
    with pytest.raises(ScoreError, match=f"the recipe is for tower fedcba9876543210, the package's reader for {TOWER}"):
        module.environments_of(recipe, features, READERS)
