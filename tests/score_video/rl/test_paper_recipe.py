"""The preset "paper": what it says, that flags and files go before it, that its runs resume bit for bit."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.toy import WIDTH, ToyEnvironment, examples, weights

from score_video import Compressor
from score_video.cli import main
from score_video.commands.train_config import read_config
from score_video.miniature.reader import Reader, ReaderConfig
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.rl import ScoreConfig, ScoreTrainer
from score_video.rl.presets import PAPER_POLICY, PRESETS, paper_training


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_all_of_the_figure() -> None:
    config = ScoreConfig.paper("nowhere", max_steps=90)
    assert (config.sampling, config.reward, config.combination) == ("bernoulli", "delta_ce", "product")
    assert (config.loss_type, config.num_iterations, config.epsilon) == ("mean", 1, None)
    assert (config.selection, config.eval_retention) == ("topk", 0.1)
    assert [(stage.name, stage.steps) for stage in config.parsed_stages()] == [("pseudo_video", 30), ("video", None)]
    assert ScoreConfig.paper("nowhere", advantage="joint", max_steps=2).advantage == "joint"
    policy = SurprisePolicy(SurprisePolicyConfig(token_width=5, **PAPER_POLICY))
    assert policy.hidden[0].in_features == 10  # [x ; dX] and nothing else


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"compression_reward": None}, "combination product must have a compression_reward to combine, got None"),
        ({"advantage": "by_objective"}, "advantage by_objective must have combination sum"),
        ({"advantage": "by_outcome"}, "advantage by_outcome must have combination sum"),
        ({"reward": "log_prob"}, "advantage by_baseline must have a reward that is above 0"),
        ({"combination": "quotient"}, "combination: name 'quotient' is not registered"),
        ({"loss_type": "median"}, "loss_type must be one of sum, mean, got 'median'"),
        ({"selection": "best"}, "selection must be one of topk, systematic, diverse, got 'best'"),
    ],
)
def test_settings_that_would_have_no_effect_are_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ScoreConfig.paper("nowhere", **settings)


def toy(output: Path, **settings: Any) -> ScoreTrainer:
    torch.manual_seed(0)
    policy = SurprisePolicy(SurprisePolicyConfig(token_width=WIDTH, hidden_sizes=[8], **PAPER_POLICY))
    own = {
        "stages": [{"name": "video", "steps": 4, "data": "first"}, {"name": "video", "data": "then"}],
        **{"per_device_train_batch_size": 4, "num_generations": 4, "save_steps": 2, "use_cpu": True, "seed": 3},
        **{"report_to": "none", "disable_tqdm": True, "lr_scheduler_type": "constant"},
    }
    data = {"first": examples(12), "then": examples(24)}
    return ScoreTrainer(policy, ToyEnvironment(), ScoreConfig.paper(str(output), **{**own, **settings}), data)


def test_a_run_resumes_bit_for_bit(tmp_path: Path) -> None:
    whole = toy(tmp_path / "whole", max_steps=10)
    whole.train()
    before = toy(tmp_path / "part", max_steps=6)
    before.train()
    shutil.rmtree(tmp_path / "part" / "checkpoint-6")  # as if it had been killed on the way there
    resumed = toy(tmp_path / "part", max_steps=10)
    resumed.train(resume_from_checkpoint=True)
    got, want = weights(resumed.model), weights(whole.model)
    assert all(torch.equal(got[name], want[name]) for name in want)
    assert not torch.equal(want["hidden.0.weight"], weights(toy(tmp_path / "new").model)["hidden.0.weight"])


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A configuration for a reader that nobody trained."""
    torch.manual_seed(0)
    Reader(ReaderConfig(tower_width=8, token_width=8, width=12, layers=1, heads=2)).save(tmp_path / "reader.st")
    monkeypatch.chdir(tmp_path)
    settings = {"per_device_train_batch_size": 2, "num_generations": 2, "save_steps": 2, "report_to": "none"}
    return {
        "environment_options": {"reader": "reader.st"},
        "data": {"validation": {"num_videos": 3}},
        "training": settings,
    }


def test_the_command(reader: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    """The pseudo-videos are made of stills without a word of data; what is given goes before the preset."""
    Path("train.yaml").write_text(yaml.safe_dump({"preset": "paper", **reader, "policy": {"hidden_sizes": [8]}}))
    assert main(["train", "--config", "train.yaml", "--steps", "3", "--set", "eval_retention=0.2"]) == 0
    written = read_config(Path("score-train/train_config.yaml"))
    assert written["preset"] is None  # spelled out, so that a later release's preset changes nothing
    assert written["policy"] == {**PAPER_POLICY, "hidden_sizes": [8]}
    expected = {**paper_training(3), "eval_retention": 0.2}
    assert {name: written["training"][name] for name in expected} == expected
    compressor = Compressor.from_pretrained("score-train")
    assert (compressor.retention, compressor.selection) == (0.2, "topk")
    assert main(["train", "--resume", "--output-dir", "score-train", "--steps", "5"]) == 0

    assert main(["train", "--config", "train.yaml", "--preset", "papers", "--output-dir", "other"]) == 2
    assert "preset must be one of paper, got 'papers'" in capfd.readouterr().err
    Path("train.yaml").write_text("preset: [paper]")
    assert main(["train", "--config", "train.yaml", "--output-dir", "other"]) == 2
    assert "train.yaml: preset must be one of paper, got ['paper']" in capfd.readouterr().err


@pytest.mark.parametrize("name", PRESETS)
def test_presets_hold_for_any_number_of_steps(name: str) -> None:
    make, policy = PRESETS[name]
    for steps in (1, 2, 3, 1000):
        ScoreConfig("nowhere", max_steps=steps, **make(steps))
    SurprisePolicyConfig(token_width=4, **policy)
