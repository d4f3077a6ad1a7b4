"""Policies by a recipe, on several readers; and the command that makes the policy of the package."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers.readers import tiny_reader

from score_video.errors import ScoreError
from score_video.miniature import train_policy as module
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.miniature.train_policy import SeveralReaders, train_policy
from score_video.policy import SurprisePolicy
from score_video.policy.pretrained import BEHIND_GATE, PRETRAINED
from score_video.rl.environment import Selection

READERS = Path(__file__).parents[3] / "evaluation" / "readers"


def test_several_readers_take_turns_by_the_first_example() -> None:
    several = [MiniatureEnvironment(tiny_reader(number, token_width=8 + number, layers=1)) for number in range(3)]
    together = SeveralReaders(several)
    data = MiniatureVideos("plain", "train", 0, 10)
    for first in range(6):
        batch = together.encode([data[first], data[9]])
        assert batch.videos.tokens.shape[1] == 8 + first % 3
        everything = Selection(torch.arange(len(batch.videos.tokens)), batch.videos.lengths[None])
        own = several[first % 3]
        expected = own.answer(own.encode([data[first], data[9]]), everything)
        torch.testing.assert_close(together.answer(batch, everything).log_prob, expected.log_prob)


def test_a_policy_of_one_reader_is_for_its_width_and_frozen() -> None:
    settings = {"max_steps": 2, "per_device_train_batch_size": 2, "num_generations": 2}
    recipe = {"seed": 0, "mixture": {"plain": 1, "static": 3}, "train_videos": 8, "policy": {}, "settings": settings}
    asked: dict[str, int] = {}

    def examples(split: str, seed: int, num_videos: int, one_question: bool) -> MiniatureVideos:
        asked[split] = num_videos
        return module.training_videos(split, seed, num_videos, one_question)

    policy, curve = train_policy(recipe, [MiniatureEnvironment(tiny_reader())], examples)
    assert policy.config.token_width == 8
    assert not policy.training and not any(weight.requires_grad for weight in policy.parameters())
    assert asked == {"plain": 2, "static": 6}
    assert [row[0] for row in curve] == [1, 2]


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's recipes, with next to no steps."""
    for name, source in (("PRETRAINED", PRETRAINED), ("BEHIND_GATE", BEHIND_GATE)):
        recipe = json.loads((source / "recipe.json").read_text())
        recipe["settings"].update(max_steps=2, per_device_train_batch_size=4, num_generations=2)
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.json").write_text(json.dumps(recipe))
        monkeypatch.setattr(module, name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("behind_gate", [False, True])
def test_the_recipes_of_the_package_make_policies(behind_gate: bool, short: Path) -> None:
    module.main(READERS, short / "policy", behind_gate)
    made = SurprisePolicy.from_pretrained(short / "policy").config
    assert made == SurprisePolicy.from_pretrained(BEHIND_GATE if behind_gate else PRETRAINED).config
    assert (made.state, made.behind_gate, made.use_seen) == ("relative", behind_gate, behind_gate)
    assert (short / "policy" / "recipe.json").is_file()


def test_other_readers_are_refused(short: Path, tmp_path: Path) -> None:
    (tmp_path / "readers").mkdir()
    for name in ("tower-1", "tower-3"):
        shutil.copy(READERS / "tower-2.safetensors", tmp_path / "readers" / f"{name}.safetensors")
    with pytest.raises(ScoreError, match=r"not in .*readers \(name@SHA-256\): tower-1@f43dd46c70a2, tower-3@9cd581"):
        module.main(tmp_path / "readers", short / "policy")
    assert not (short / "policy").exists()
