"""What a run must share with the one it goes on from: everything, unless somebody said why not."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy import config, examples, trainer, weights

from score_video.rl import checkpoint
from score_video.rl.config import FIELDS, RENAMED, ScoreConfig
from score_video.rl.run_settings import FREE, decisive

EARLIER = (
    *("seed", "num_generations", "num_iterations", "epsilon", "law", "retention", "advantage", "scale_rewards"),
    *("compression", "compression_weight", "target_retention", "stages", "gradient_accumulation_steps"),
    *("learning_rate", "lr_scheduler_type", "weight_decay", "max_grad_norm", "reward", "videos_of_a_step"),
)
"""What release 0.1.0 wrote into run.json."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps, a checkpoint after each."""
    torch.set_num_threads(1)
    output = tmp_path_factory.mktemp("run")
    trainer(output, max_steps=4, save_steps=1, save_total_limit=None).train()
    return output


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run"


def rewrite(folder: Path, settings: dict[str, Any]) -> None:
    """Gives a checkpoint other settings, as if it had been saved with them."""
    (folder / "run.json").write_text(json.dumps(settings))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["sha256"]["run.json"] = hashlib.sha256((folder / "run.json").read_bytes()).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", [*FIELDS, "videos_of_a_step", "examples_of_stages"])
def test_every_setting_is_compared_or_has_a_reason(run: Path, copy: Path, name: str) -> None:
    saved = json.loads((run / "checkpoint-4" / "run.json").read_text())
    assert (name in saved) != (name in FREE)
    settings = {**saved, name: "another"}
    rewrite(copy / "checkpoint-4", settings)
    resumed = trainer(copy, max_steps=4)
    if name in FREE:
        checkpoint.check_run(copy / "checkpoint-4", resumed.settings_of_run())
        return
    with pytest.raises(ValueError, match=f"checkpoint-4: {name} must be what the run began with, 'another', got "):
        resumed.train(resume_from_checkpoint=True)


def test_a_setting_that_nobody_has_thought_about_is_compared(tmp_path: Path) -> None:
    @dataclasses.dataclass
    class Later(ScoreConfig):
        brand_new: float = 0.5

    assert decisive(Later(str(tmp_path), use_cpu=True, report_to="none"))["brand_new"] == 0.5


def test_what_is_free_is_there() -> None:
    assert set(FREE) - set(FIELDS) == set()
    assert all(FREE.values())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"optim": "sgd"}, "optim must be what the run began with, 'adamw_torch_fused', got 'sgd'"),
        ({"bf16": True}, "bf16 must be"),
        ({"warmup_steps": 2}, "warmup_steps must be what the run began with, 0, got 2"),
        ({"adam_beta1": 0.8}, "adam_beta1 must be what the run began with, 0.9, got 0.8"),
        ({"lr_scheduler_kwargs": {"num_cycles": 2}}, "lr_scheduler_kwargs must be"),
        ({"data": examples(23)}, r"examples_of_stages must be what the run began with, \[24\], got \[23\]"),
    ],
)
def test_what_was_taken_silently(run: Path, changed: dict[str, Any], says: str) -> None:
    data = changed.pop("data", None) if "data" in changed else None
    with pytest.raises(ValueError, match=f"checkpoint-4: {says}"):
        trainer(run, None, data, **{"max_steps": 6, **changed}).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    "changed",
    [
        {"save_steps": 3, "logging_steps": 5, "save_total_limit": 7},
        {"dataloader_num_workers": 1},
        {"skip_broken": True},
    ],
)
def test_what_may_be_another(copy: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    whole = trainer(tmp_path / "whole", max_steps=6)
    whole.train()
    resumed = trainer(copy, **{"max_steps": 6, **changed})
    resumed.train(resume_from_checkpoint=True)
    assert all(torch.equal(value, weights(whole.model)[name]) for name, value in weights(resumed.model).items())


def test_what_may_be_another_is_taken(copy: Path) -> None:
    """transformers goes on with how often the run was told at first."""
    resumed = trainer(copy, max_steps=8, save_steps=3, logging_steps=3, save_total_limit=None)
    resumed.train(resume_from_checkpoint=True)
    assert [folder.name for folder in checkpoint.checkpoints(copy)][4:] == ["checkpoint-6", "checkpoint-8"]
    assert [line["step"] for line in resumed.state.log_history if "loss" in line] == [2, 4, 6]


@pytest.fixture
def earlier(copy: Path) -> Path:
    """The run as release 0.1.0 would have left it."""
    for folder in checkpoint.checkpoints(copy):
        saved = json.loads((folder / "run.json").read_text())
        rewrite(folder, {name: saved[RENAMED.get(name, name)] for name in EARLIER})
    return copy


def test_checkpoints_of_an_earlier_release_are_resumed(earlier: Path, tmp_path: Path) -> None:
    whole = trainer(tmp_path / "whole", max_steps=6)
    whole.train()
    resumed = trainer(earlier, max_steps=6)
    resumed.train(resume_from_checkpoint=True)
    assert all(torch.equal(value, weights(whole.model)[name]) for name, value in weights(resumed.model).items())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"learning_rate": 0.5}, "learning_rate must be"),
        ({"optim": "sgd"}, "optimizer.pt: the optimiser must be of the kind that the run began with, got SGD"),
        ({"optim": "adamw_torch"}, "optimizer.pt: the optimiser's fused must be what the run began with, True, got "),
        ({"adam_beta1": 0.8}, r"the optimiser's betas must be what the run began with, \(0.9, 0.999\), got \(0.8"),
        ({"adam_epsilon": 1e-3}, "the optimiser's eps must be"),
    ],
)
def test_what_checkpoints_of_an_earlier_release_have_is_compared(
    earlier: Path, changed: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        trainer(earlier, max_steps=6, **changed).train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"optim": "adamw_bnb_8bit"}, "optim 'adamw_bnb_8bit' cannot be used: "),
        ({"optim_args": "foo"}, "optim 'adamw_torch_fused' and optim_args 'foo' cannot be used: "),
        (
            {"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"foo": 1}},
            "lr_scheduler_type 'cosine' and lr_scheduler_kwargs {'foo': 1} cannot be used: ",
        ),
    ],
)
def test_errors_of_libraries_about_settings(tmp_path: Path, settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError) as error:
        trainer(tmp_path, **settings).train()
    assert says in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("given", ["wandb", ["tensorboard", "comet_ml"], "neptune", "flyte", "azure_ml", "clearml"])
def test_a_reporter_that_is_not_installed(tmp_path: Path, given: Any) -> None:
    with pytest.raises(ValueError, match=r"report_to: what (\w+) needs is not installed") as error:
        config(tmp_path, report_to=given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("given", "is_one"), [(None, []), ("none", []), ([], []), (["none"], [])])
def test_no_reporter(tmp_path: Path, given: Any, is_one: list[str]) -> None:
    assert config(tmp_path, report_to=given).report_to == is_one


def test_a_reporter_that_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"report_to must be none, all, or some of .*tensorboard.*, got 'pigeons'"):
        config(tmp_path, report_to="pigeons")


# ---- Going back


def test_an_older_checkpoint_sets_aside_what_came_after(copy: Path, tmp_path: Path) -> None:
    later = {name: (copy / "checkpoint-4" / name).read_bytes() for name in ("model.safetensors", "optimizer.pt")}
    whole = trainer(tmp_path / "whole", max_steps=4)
    whole.train()
    resumed = trainer(copy, max_steps=4, save_total_limit=None)
    resumed.train(resume_from_checkpoint=str(copy / "checkpoint-2"))
    assert all(torch.equal(value, weights(whole.model)[name]) for name, value in weights(resumed.model).items())
    aside = copy / "set-aside-1"
    assert [folder.name for folder in checkpoint.checkpoints(aside)] == ["checkpoint-3", "checkpoint-4"]
    assert {name: (aside / "checkpoint-4" / name).read_bytes() for name in later} == later
    checkpoint.check(aside / "checkpoint-3")
    # and once more
    trainer(copy, max_steps=4, save_total_limit=None).train(resume_from_checkpoint=str(copy / "checkpoint-1"))
    assert [folder.name for folder in checkpoint.checkpoints(copy / "set-aside-2")] == ["checkpoint-2", "checkpoint-4"]


def test_nothing_is_set_aside_before_there_is_something_newer(copy: Path) -> None:
    run = trainer(copy, max_steps=4)
    run.get_batch_samples = fails
    with pytest.raises(ZeroDivisionError):
        run.train(resume_from_checkpoint=str(copy / "checkpoint-2"))
    assert [folder.name for folder in checkpoint.checkpoints(copy)] == [f"checkpoint-{n}" for n in range(1, 5)]
    assert not (copy / "set-aside-1").exists()


def fails(*arguments: Any) -> None:
    raise ZeroDivisionError


def test_a_damaged_checkpoint_says_which_are_older(copy: Path) -> None:
    (copy / "checkpoint-4" / "optimizer.pt").write_bytes(b"")
    says = r"resume from an older checkpoint \(checkpoint-1, checkpoint-2, checkpoint-3\)"
    with pytest.raises(ValueError, match=says):
        trainer(copy, max_steps=4).train(resume_from_checkpoint=True)
    (copy / "checkpoint-1" / "optimizer.pt").write_bytes(b"")
    with pytest.raises(ValueError, match="there is no older checkpoint"):
        trainer(copy, max_steps=4).train(resume_from_checkpoint=str(copy / "checkpoint-1"))


def test_former_names_of_settings(tmp_path: Path) -> None:
    former: Any = {"law": "counted", "compression": "linear"}
    with pytest.warns(DeprecationWarning, match="is now called") as warned:
        args = ScoreConfig(str(tmp_path), use_cpu=True, report_to="none", **former)
    assert (args.sampling, args.compression_reward) == ("counted", "linear")
    assert [str(w.message) for w in warned if w.filename == __file__] == [
        "law is now called sampling",
        "compression is now called compression_reward",
    ]
    with pytest.raises(ValueError, match="law is the former name of sampling: give sampling alone"):
        ScoreConfig(str(tmp_path), sampling="exact", **former)
    # HfArgumentParser and other readers of a dataclass see the new names alone
    assert not {"law", "compression"} & set(FIELDS)


def test_a_run_of_an_earlier_release_is_resumed_and_still_compared(run: Path, copy: Path) -> None:
    folder = copy / "checkpoint-4"
    saved = json.loads((run / "checkpoint-4" / "run.json").read_text())
    former = {{"sampling": "law", "compression_reward": "compression"}.get(name, name): v for name, v in saved.items()}
    assert "law" in former and "compression" in former
    rewrite(folder, former)
    trainer(copy, max_steps=6).train(resume_from_checkpoint=True)
    rewrite(folder, {**former, "law": "bernoulli"})
    with pytest.raises(ValueError, match="sampling must be what the run began with, 'bernoulli', got "):
        trainer(copy, max_steps=8).train(resume_from_checkpoint=str(folder))


def test_former_names_of_registries() -> None:
    rl = importlib.import_module("score_video.rl")
    with pytest.warns(DeprecationWarning, match="score_video.rl.LAWS is now called SAMPLINGS"):
        assert rl.LAWS is rl.SAMPLINGS
    sys.modules.pop("score_video.rl.laws", None)
    with pytest.warns(DeprecationWarning, match="score_video.rl.laws is now score_video.rl.sampling"):
        laws = importlib.import_module("score_video.rl.laws")
    assert laws.LAWS is rl.SAMPLINGS
    with pytest.raises(AttributeError, match="no attribute 'RULES'"):
        _ = rl.RULES
