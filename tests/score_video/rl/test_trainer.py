"""What a training does: it learns, changes the policy alone, and says what it saw."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy import GRID, UNDECIDED, ToyEnvironment, assert_close, config, examples, policy, trainer, weights
from safetensors.torch import load_file
from torch import Tensor

from score_ext.budget import keep_count
from score_video.errors import ScoreError
from score_video.policy import SurprisePolicy
from score_video.rl.advantages import ADVANTAGES, Rewards, leave_one_out
from score_video.rl.config import ScoreConfig
from score_video.rl.curriculum import ScheduledExamples, video_seed
from score_video.rl.environment import EncodedBatch, Outcome
from score_video.rl.sampling import SAMPLINGS, Exact
from score_video.rl.trainer import ScoreTrainer


def history(run: Any) -> list[dict[str, float]]:
    return [line for line in run.state.log_history if "loss" in line]


@pytest.mark.parametrize(
    "settings", [{}, {"sampling": "bernoulli", "compression_reward": "hinged", "target_retention": 0.3}]
)
def test_it_learns_to_keep_what_is_marked(tmp_path: Path, settings: dict[str, Any]) -> None:
    settings |= {"max_steps": 150, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "logging_steps": 10}
    run = trainer(tmp_path, save_strategy="no", eval_dataset=examples(8), **settings)
    before = run.evaluate()
    run.train()
    after = run.evaluate()
    lines = history(run)
    assert lines[-1]["reward"] > lines[0]["reward"] + 0.5
    assert after["eval_reward"] > before["eval_reward"] + 0.8
    assert after["eval_accuracy"] > before["eval_accuracy"] + 0.5


@pytest.mark.parametrize("sampling", sorted(SAMPLINGS))
def test_every_policy_parameter_changes_and_nothing_of_the_environment_does(tmp_path: Path, sampling: str) -> None:
    environment = ToyEnvironment()
    frozen = {name: value.clone() for name, value in environment.frozen.state_dict().items()}
    run = trainer(tmp_path, environment, max_steps=1, save_steps=1, sampling=sampling)
    before = weights(run.model)
    run.train()
    after = weights(run.model)
    for name, parameter in before.items():
        if not (sampling == "exact" and name in UNDECIDED):
            assert not torch.equal(parameter, after[name]), name
    for name, value in environment.frozen.state_dict().items():
        assert torch.equal(value, frozen[name])
        assert environment.frozen.get_parameter(name).grad is None
    # and it is no part of what is saved
    saved = load_file(tmp_path / "checkpoint-1" / "model.safetensors")
    assert set(saved) == set(after)
    again = SurprisePolicy.from_pretrained(tmp_path / "checkpoint-1")
    assert all(torch.equal(value, after[name]) for name, value in weights(again).items())


def test_a_step_by_hand(tmp_path: Path) -> None:
    """The first step's loss and gradient, made again from the sampling, the rewards and the seeds."""
    environment = ToyEnvironment()
    captured: list[Tensor] = []
    run = trainer(tmp_path, environment, max_steps=1, save_strategy="no", logging_steps=1, max_grad_norm=0.0)
    optimizer_step = torch.optim.AdamW.step

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        captured.extend(p.grad.clone() for group in self.param_groups for p in group["params"])
        return optimizer_step(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spy)
        run.train()

    model = policy()
    data: ScheduledExamples = run.train_dataset
    batch = ToyEnvironment().encode([data[i][0] for i in range(4)])
    seeds = torch.tensor([video_seed(3, 0, position) for position in range(4)])
    keep = torch.full((4,), keep_count(4, GRID * GRID, 0.2), dtype=torch.int32)
    logits = model(batch.videos)
    rollout = SAMPLINGS["exact"].sample(logits.detach(), batch.videos, keep, 4, seeds)
    reward = ToyEnvironment().answer(batch, rollout.selection).log_prob.clamp(min=-3)
    advantage = reward - (reward.sum(0) - reward) / 3
    loss = -(advantage * SAMPLINGS["exact"].log_prob(logits, batch.videos, rollout)["subset"]).mean()
    loss.backward()
    assert torch.equal(environment.selections[0].index, rollout.selection.index)
    (line,) = history(run)
    assert line["loss"] == pytest.approx(loss.item(), abs=1e-6)
    assert line["reward"] == pytest.approx(reward.mean().item(), abs=1e-6)
    assert line["reward_std"] == pytest.approx(reward.std(0).mean().item(), abs=1e-6)
    assert line["advantage"] == pytest.approx(advantage.abs().mean().item(), abs=1e-6)
    assert line["kept"] == keep[0]
    assert line["kept_ratio"] == pytest.approx(int(keep[0]) / 36)
    want = sorted(p.grad.abs().sum().item() for p in model.parameters() if p.grad is not None)
    assert sorted(g.abs().sum().item() for g in captured) == pytest.approx(want, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("sampling", sorted(SAMPLINGS))
@pytest.mark.parametrize("iterations", [1, 2])
def test_every_sampling_and_what_is_logged_of_it(tmp_path: Path, sampling: str, iterations: int) -> None:
    given = sampling in ("exact", "diverse")  # how many are kept
    settings: dict[str, Any] = {} if given else {"compression_reward": "linear", "compression_weight": 0.5}
    run = trainer(tmp_path, sampling=sampling, num_iterations=iterations, eval_dataset=examples(5), **settings)
    run.train()
    lines = history(run)
    assert len(lines) == 3
    for line in lines:
        assert all(math.isfinite(line[name]) for name in ("loss", "entropy", "reward", "accuracy", "grad_norm"))
        assert ("clip_ratio" in line) == (iterations > 1)
        if not given:
            assert line["compression_reward"] == pytest.approx(1 - line["kept_ratio"], abs=1e-6)
            assert line["reward"] == pytest.approx(line["task_reward"] + 0.5 * line["compression_reward"], abs=1e-5)
        assert "stage" not in line
    metrics = run.evaluate()
    assert set(metrics) >= {"eval_reward", "eval_accuracy", "eval_kept_ratio"}
    assert metrics == run.evaluate()
    if given:
        assert metrics["eval_kept_ratio"] == pytest.approx(7 / 36)


def test_diverse_draws_by_the_weight_that_is_selected_by(tmp_path: Path) -> None:
    model = policy()
    model.config.distance_weight = 8.0
    with pytest.raises(ScoreError, match=r"distance_weight of the policy must be 6\.0, .* got 8\.0"):
        ScoreTrainer(model, ToyEnvironment(), config(tmp_path, sampling="diverse"), examples())


def test_two_steps_of_a_rollout_share_its_samples(tmp_path: Path) -> None:
    environment = ToyEnvironment()
    run = trainer(tmp_path, environment, num_iterations=3, max_steps=7)
    run.train()
    assert len(environment.selections) == 3  # steps 1, 4 and 7
    assert run.args.epsilon == 0.2


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    def final(**settings: Any) -> dict[str, Tensor]:
        run = trainer(tmp_path, save_strategy="no", advantage="by_objective", scale_rewards=True, **settings)
        run.train()
        return weights(run.model)

    whole = final(per_device_train_batch_size=4)
    parts = final(per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert_close(parts, whole, but=UNDECIDED)


def test_eval_answers_every_example_once(tmp_path: Path) -> None:
    environment = ToyEnvironment()
    run = trainer(tmp_path, environment, per_device_eval_batch_size=4, eval_retention=0.5)
    data = {"a": examples(6), "b": examples(1)}
    metrics = run.evaluate(data)
    assert [[e["number"] for e in batch] for batch in environment.encoded] == [[0, 1, 2, 3], [4, 5], [0]]
    assert metrics["eval_a_kept_ratio"] == 0.5
    # the mean over videos, not over batches
    per_video = [run.evaluate([e])["eval_reward"] for e in examples(6)]
    assert metrics["eval_a_reward"] == pytest.approx(sum(per_video) / 6)
    with pytest.raises(ValueError, match="eval_dataset must be given"):
        run.evaluate()
    with pytest.raises(ValueError, match="eval_dataset must have examples, got none"):
        run.evaluate([])


def test_stages_change_the_examples_and_the_budget(tmp_path: Path) -> None:
    environment = ToyEnvironment()
    stages = [
        {"name": "video", "data": "short", "steps": 2, "retention": 0.5},
        {"name": "video", "data": "long"},
    ]
    data = {"short": examples(8, frames=1), "long": examples(8, frames=3)}
    run = trainer(tmp_path, environment, data, stages=stages, max_steps=4, logging_steps=1)
    run.train()
    assert [batch[0]["frames"] for batch in environment.encoded] == [1, 1, 3, 3]
    assert [int(s.keep[0, 0]) for s in environment.selections] == [4, 4, 5, 5]
    assert [line["stage"] for line in history(run)] == [1, 1, 2, 2]


def test_empty_videos_and_equal_groups(tmp_path: Path) -> None:
    environment = ToyEnvironment()
    mixed = [{"number": i, "frames": i % 2} for i in range(4)]
    run = trainer(tmp_path, environment, mixed, max_steps=2, logging_steps=1)
    run.train()
    assert all(0.5 <= line["frac_reward_zero_std"] <= 1 for line in history(run))
    # nothing but empty videos: no gradient, and nothing changes
    run = trainer(tmp_path / "empty", None, examples(4, frames=0), max_steps=2, logging_steps=1)
    before = weights(run.model)
    run.train()
    assert [line["frac_reward_zero_std"] for line in history(run)] == [1, 1]
    assert [line["grad_norm"] for line in history(run)] == [0, 0]
    assert all(torch.equal(value, before[name]) for name, value in weights(run.model).items())


def nan_from(step: int) -> Callable[[Outcome], Tensor]:
    calls = 0

    def reward(outcome: Outcome) -> Tensor:
        nonlocal calls
        calls += 1
        return outcome.correct * (math.nan if calls >= step else 1)

    return reward


def test_nan_rewards_are_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, reward=nan_from(3))
    with pytest.raises(ValueError, match="step 3: reward 'reward' must be finite, got 16 of 16 values NaN"):
        run.train()


def test_a_reward_of_ones_own_and_one_that_needs_divergence(tmp_path: Path) -> None:
    run = trainer(tmp_path, max_steps=2, reward=lambda outcome: outcome.correct)
    run.train()
    for line in history(run):
        assert line["reward"] == pytest.approx(line["accuracy"])
    run = trainer(tmp_path / "fidelity", max_steps=2, reward="fidelity", eval_dataset=examples(2))
    run.train()
    assert all(line["reward"] < 0 for line in history(run))
    assert run.evaluate()["eval_reward"] < 0
    run = trainer(tmp_path / "shape", reward=lambda outcome: outcome.correct[0])
    with pytest.raises(ValueError, match=r"task must be \[4, 4\], got \[4\]"):
        run.train()


def test_an_advantage_sees_the_whole_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Rewards] = []

    def mine(rewards: Rewards, weight: float, scale: bool, factors: tuple[str, ...]) -> Mapping[str, Tensor]:
        seen.append(rewards)
        return leave_one_out(rewards, weight, scale, factors)

    monkeypatch.setitem(ADVANTAGES, "mine", mine)
    trainer(tmp_path, max_steps=2, gradient_accumulation_steps=2, advantage="mine").train()
    assert [rewards.task.shape for rewards in seen] == [(4, 8), (4, 8)]
    assert torch.equal(seen[0].decisions["subset"], torch.full((4, 8), 7.0))


class Broken(ToyEnvironment):
    def encode(self, examples: Any) -> EncodedBatch:
        return super().encode(examples[:-1])


def test_an_environment_that_loses_a_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"environment\.encode must give 4 videos, one for each example, got 3"):
        trainer(tmp_path, Broken()).train()


def test_mixed_precision_trains(tmp_path: Path) -> None:
    run = trainer(tmp_path, bf16=True, eval_dataset=examples(2))
    before = weights(run.model)
    run.train()
    assert all(value.dtype == torch.float32 for value in weights(run.model).values())
    assert not all(torch.equal(value, before[name]) for name, value in weights(run.model).items())
    assert all(math.isfinite(line["loss"]) for line in history(run))
    run.evaluate()


def test_the_bar_shows_the_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = io.StringIO()
    monkeypatch.setattr("sys.stderr", shown)
    trainer(tmp_path, disable_tqdm=False).train()
    assert "reward=-" in shown.getvalue()
    assert "kept_ratio=0.194" in shown.getvalue()
    assert "Writing model" not in shown.getvalue()
    shown.truncate(0)
    trainer(tmp_path / "off", disable_tqdm=True).train()
    assert "reward" not in shown.getvalue()


def test_metrics_go_to_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    trainer(tmp_path, report_to="tensorboard", save_strategy="no").train()
    assert list(tmp_path.rglob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"num_generations": 1}, "num_generations must be an integer of at least 2, got 1"),
        ({"num_iterations": 0}, "num_iterations must be an integer of at least 1, got 0"),
        ({"max_steps": -1}, "max_steps must be an integer of at least 1, got -1"),
        ({"epsilon": 0.2}, "epsilon must be None with num_iterations 1"),
        ({"epsilon": 2.0, "num_iterations": 2}, "epsilon must be a number between 0 and 1, got 2.0"),
        ({"retention": 0}, r"retention must be a number in \(0, 1\], got 0"),
        ({"retention": None}, r"retention must be a number in \(0, 1\], got None"),
        ({"target_retention": 2}, r"target_retention must be a number in \(0, 1\], got 2"),
        ({"sampling": "gauss"}, "sampling: name 'gauss' is not registered; the registered names are exact"),
        ({"reward": "no.such:thing"}, "reward: name 'no.such:thing' cannot be imported"),
        ({"advantage": 3}, "advantage must be a string, got 3"),
        ({"compression_reward": "linear"}, "compression_reward must be None with sampling exact"),
        ({"compression_reward": "gone", "sampling": "counted"}, "compression_reward: name 'gone' is not registered"),
        ({"compression_weight": 0, "sampling": "counted"}, "compression_weight must be a number above 0, got 0"),
        ({"advantage": "by_factor", "sampling": "bernoulli"}, "by_factor must have sampling counted or exact"),
        ({"stages": [{"name": "film"}]}, r"stages\[0\]: name must be one of"),
        ({"save_total_limit": 0}, "save_total_limit must be at least 1, or None, got 0"),
        ({"train_sampling_strategy": "random"}, "train_sampling_strategy must be 'sequential' here"),
        ({"save_only_model": True}, "save_only_model must be False here"),
        ({"fsdp": "full_shard"}, "fsdp is not for policies"),
    ],
)
def test_settings_that_contradict_are_refused(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        config(tmp_path, **settings)


def test_a_sampling_of_ones_own_that_keeps_a_given_count_has_no_compression_to_reward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SAMPLINGS, "mine", Exact())
    config(tmp_path, sampling="mine", advantage="by_factor")
    with pytest.raises(ValueError, match="compression_reward must be None with sampling mine, where all samples keep"):
        config(tmp_path, sampling="mine", compression_reward="linear")


def test_every_setting_of_ours_says_what_it_is(tmp_path: Path) -> None:
    own = vars(ScoreConfig)["__annotations__"]
    for name, entry in ScoreConfig.__dataclass_fields__.items():
        assert name not in own or len(entry.metadata["help"]) > 10, name
    stages = [{"name": "video", "steps": 2}]
    with pytest.raises(ValueError, match="stages must last max_steps steps in all, got 2 of 6"):
        trainer(tmp_path, stages=stages)
    json.dumps(config(tmp_path).to_dict())


def test_processes_that_would_not_train_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    args = config(tmp_path)  # on which accelerate decides, alone
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match=r"the 2 processes that were started \(WORLD_SIZE\) train 1 to a run"):
        ScoreTrainer(policy(), ToyEnvironment(), args, examples())
