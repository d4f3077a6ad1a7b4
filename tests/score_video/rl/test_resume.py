"""Killed at any moment and resumed, a training ends in the same weights, bit for bit; a bad checkpoint is refused."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy import ToyEnvironment, examples, trainer, weights
from torch import Tensor

from score_video.rl import checkpoint
from score_video.rl.environment import EncodedBatch, Outcome, Selection
from score_video.rl.resumable import ResumableTrainer

STEPS = 24
# rollouts of two steps and checkpoints every three: every other one lies between two steps of a rollout
SETTINGS: dict[str, Any] = {
    "max_steps": STEPS,
    "num_iterations": 2,
    "save_steps": 3,
    "sampling": "counted",
    "compression_reward": "hinged",
    "stages": [{"name": "video", "steps": 8, "retention": 0.4}, {"name": "video"}],
}


class SlowEnvironment(ToyEnvironment):
    """So slow that a training can be killed in its midst."""

    def answer(self, batch: EncodedBatch, selection: Selection, **asked: bool) -> Outcome:
        time.sleep(0.02)
        return super().answer(batch, selection, **asked)


def train(output: Path, resume: bool, environment: ToyEnvironment | None = None) -> dict[str, Tensor]:
    run = trainer(output, environment, **SETTINGS)
    run.train(resume_from_checkpoint=resume)
    return weights(run.model)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    torch.set_num_threads(1)
    return train(tmp_path_factory.mktemp("whole"), False)


@pytest.fixture(scope="module")
def half_done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that ended after 9 steps of 24, between two steps of a rollout."""
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("half")
    in_a_child(lambda: killed_when(9, output))
    assert [folder.name for folder in checkpoint.checkpoints(output)] == ["checkpoint-6", "checkpoint-9"]
    return output


def killed_when(step: int, output: Path, train: Callable[[Path, bool], object] = train) -> None:
    """Trains, and dies as soon as the checkpoint of that step is in its place."""
    keep = checkpoint.keep_latest

    def and_die(*arguments: Any) -> None:
        keep(*arguments)
        if (output / f"checkpoint-{step}").exists():
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.keep_latest = and_die
    train(output, False)


def in_a_child(work: Callable[[], object], after: Callable[[], None] | None = None) -> bool:
    """Runs it in a fork of this process, which ``after`` may kill when it returns. Whether it was killed."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    if after is not None:
        after()
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0
    return os.WIFSIGNALED(status)


def equal(got: dict[str, Tensor], want: dict[str, Tensor]) -> bool:
    return got.keys() == want.keys() and all(torch.equal(got[name], want[name]) for name in want)


def test_resumed_after_sigkill_at_random_moments(tmp_path: Path, uninterrupted: dict[str, Tensor]) -> None:
    moments = random.Random(os.urandom(8))

    def wait() -> None:
        before = len(checkpoint.checkpoints(tmp_path))
        begun = time.monotonic()
        while len(checkpoint.checkpoints(tmp_path)) == before == 0 and time.monotonic() - begun < 60:
            time.sleep(0.001)
        time.sleep(moments.uniform(0, 0.15))

    killed = [in_a_child(lambda: train(tmp_path, bool(n), SlowEnvironment()), wait) for n in range(3)]  # noqa: B023
    assert any(killed)
    assert equal(train(tmp_path, True), uninterrupted)


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (ResumableTrainer, "_save_optimizer_and_scheduler"),  # the weights are written, the rest is not
        (checkpoint, "save_run"),  # all but the manifest
        (checkpoint, "_to_disk"),  # all, but not in its place
        (checkpoint, "keep_latest"),  # in its place, the old ones still there
        (shutil, "rmtree"),  # an old one on its way out
    ],
)
def test_killed_while_a_checkpoint_is_written(
    tmp_path: Path, uninterrupted: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    def die_in_the_fourth_checkpoint(*arguments: Any, **keywords: Any) -> Any:
        if (tmp_path / "checkpoint-9").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments, **keywords)

    original = getattr(owner, name)
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, die_in_the_fourth_checkpoint)
        assert in_a_child(lambda: train(tmp_path, False))
    assert checkpoint.checkpoints(tmp_path)[-1].name in ("checkpoint-9", "checkpoint-12")
    for folder in checkpoint.checkpoints(tmp_path):
        checkpoint.check(folder)
    assert equal(train(tmp_path, True), uninterrupted)
    # nothing is left of what was not finished
    assert sorted(folder.name for folder in tmp_path.iterdir()) == ["checkpoint-21", "checkpoint-24"]


def test_an_older_checkpoint_and_a_finished_run_are_resumed_too(
    tmp_path: Path, half_done: Path, uninterrupted: dict[str, Tensor]
) -> None:
    output = tmp_path / "run"
    shutil.copytree(half_done, output)
    run = trainer(output, **SETTINGS)
    run.train(resume_from_checkpoint=str(output / "checkpoint-6"))
    assert equal(weights(run.model), uninterrupted)
    assert equal(train(output, True), uninterrupted)  # nothing was left to do


def test_metrics_go_on_where_they_were(half_done: Path, tmp_path: Path) -> None:
    shutil.copytree(half_done, tmp_path / "run")
    run = trainer(tmp_path / "run", **SETTINGS)
    run.train(resume_from_checkpoint=True)
    assert [line["step"] for line in run.state.log_history if "loss" in line] == [*range(2, STEPS + 1, 2)]
    assert [line["stage"] for line in run.state.log_history if "loss" in line] == [1] * 4 + [2] * 8


FILES = ("model.safetensors", "config.json", "trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth")


@pytest.mark.parametrize("damage", ["cut off", "garbage", "gone"])
@pytest.mark.parametrize("name", [*FILES, "run.json", "rollout-1-of-1.safetensors", "manifest.json"])
def test_a_damaged_checkpoint_is_refused_by_its_file(tmp_path: Path, half_done: Path, name: str, damage: str) -> None:
    output = tmp_path / "run"
    shutil.copytree(half_done, output)
    file = output / "checkpoint-9" / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[: len(content) // 2] if damage == "cut off" else os.urandom(len(content)))
    run = trainer(output, **SETTINGS)
    before = weights(run.model)
    with pytest.raises(ValueError, match=rf"checkpoint-9.*{name}") as error:
        run.train(resume_from_checkpoint=True)
    assert "\n" not in str(error.value)
    assert equal(weights(run.model), before)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"stages": [{"name": "video", "steps": 10}, {"name": "video"}]}, "stages must be what the run began with"),
        ({"seed": 4}, "seed must be what the run began with, 3, got 4"),
        ({"per_device_train_batch_size": 2}, "videos_of_a_step must be what the run began with, 4, got 2"),
        (
            {"reward": lambda outcome: outcome.correct},
            "reward must be what the run began with, 'log_prob', got '<lambda>'",
        ),
        ({"learning_rate": 0.1}, "learning_rate must be what the run began with, 0.003, got 0.1"),
    ],
)
def test_other_settings_are_refused(half_done: Path, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=f"checkpoint-9: {says}"):
        trainer(half_done, **{**SETTINGS, **changed}).train(resume_from_checkpoint=True)


def test_a_rollout_of_two_processes_is_not_resumed_in_one(tmp_path: Path, half_done: Path) -> None:
    folder = tmp_path / "checkpoint-9"
    shutil.copytree(half_done / "checkpoint-9", folder)
    (folder / "rollout-1-of-1.safetensors").rename(folder / "rollout-1-of-2.safetensors")
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(manifest.replace("rollout-1-of-1", "rollout-1-of-2"))
    with pytest.raises(ValueError, match="must be resumed with as many processes, got 1"):
        trainer(tmp_path, **SETTINGS).train(resume_from_checkpoint=True)


def test_checkpoints_of_an_earlier_run_are_not_mixed_with_new_ones(half_done: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds checkpoints of an earlier run \(checkpoint-9\)"):
        trainer(half_done, **SETTINGS).train()
    with pytest.raises(ValueError, match="has no checkpoint to resume from"):
        trainer(tmp_path, **SETTINGS).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="there is no such checkpoint"):
        trainer(tmp_path, **SETTINGS).train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))


def test_the_best_checkpoint_stays(tmp_path: Path) -> None:
    """The reward falls from evaluation to evaluation, so that the first checkpoint is the best."""
    rewards = iter([5.0, 4.0, 3.0])
    run = trainer(
        tmp_path,
        max_steps=6,
        eval_strategy="steps",
        eval_steps=2,
        metric_for_best_model="reward",
        load_best_model_at_end=True,
        eval_dataset=examples(1),
        reward=lambda outcome: outcome.correct + (next(rewards) if outcome.correct.shape == (1, 1) else 0),
    )
    run.train()
    assert [folder.name for folder in checkpoint.checkpoints(tmp_path)] == ["checkpoint-2", "checkpoint-6"]
    assert run.state.best_model_checkpoint == str(tmp_path / "checkpoint-2")
    state = json.loads((tmp_path / "checkpoint-6" / "trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "checkpoint-2")
