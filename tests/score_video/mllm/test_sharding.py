"""A frozen model whose layers two processes share: nothing of what comes out changes, whatever each of them does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.tiny_training import tiny_training
from helpers.videos import write_video
from safetensors.torch import load_file

from score_video.commands.train import train
from score_video.errors import ScoreError

HERE = Path(__file__).parent
LETTERS = {"question": "A or B?", "answer": "A", "options": ["A", "B"]}
STEPS = 4


def port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def run(command: list[str], **more: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", **more}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]


def test_every_family_says_the_same_when_it_is_shared() -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", port()]
    paths = os.pathsep.join([str(HERE), str(HERE.parents[1])])
    run([*torchrun, str(HERE / "sharded_process.py")], PYTHONPATH=paths)


@pytest.fixture
def config(tiny_qwen: Path, tmp_path: Path) -> dict[str, Any]:
    """Videos with one to three questions, so that the processes are never done together; three to evaluate on."""
    rows = []
    for number in range(5):
        noise = np.random.default_rng(number).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
        write_video(tmp_path / f"{number}.mp4", list(noise))
        asked = [LETTERS, {"question": "What?", "answer": "a cat"}, {**LETTERS, "question": "B or A?"}]
        rows.append({"video": f"{number}.mp4", "questions": asked[: 1 + number % 3]})
    for name, some in (("train", rows), ("validation", rows[:3])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)))
    settings = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 1,
        "num_iterations": 2,
        "save_steps": STEPS - 1,  # between two steps of a rollout
        "logging_steps": 1,
        "lr_scheduler_type": "constant",
    }
    return tiny_training(tiny_qwen, tmp_path, {"max_tokens_per_forward": 150}, settings)


def begin(config: dict[str, Any], output: Path, launcher: list[str], *options: str) -> None:
    file = output.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    module = ["-m", "score_video.cli", "train", "--config", str(file), "--output-dir", str(output), *options]
    run([sys.executable, "-m", *launcher, *module])


def metrics(output: Path) -> Any:
    state = json.loads((output / "trainer_state.json").read_text(encoding="utf-8"))
    told = ("epoch", "runtime")  # of what the process that began was to train
    return [{name: value for name, value in line.items() if name not in told} for line in state["log_history"]]


def test_a_training_ends_in_the_same_weights(config: dict[str, Any], tmp_path: Path) -> None:
    """Bit for bit those of two processes that have the whole model each; stopped and gone on with by accelerate's
    configuration."""
    torchrun = ["torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    begin(config, tmp_path / "whole", [*torchrun, port()])
    config["environment_options"] |= {"sharded": True, "cache_dir": str(tmp_path / "features of parts")}
    config["training"]["max_steps"] = STEPS - 1
    begin(config, tmp_path / "shared", [*torchrun, port()])

    del config["environment_options"]["sharded"]  # accelerate says so
    config["training"]["max_steps"] = STEPS
    (accelerate := tmp_path / "accelerate.yaml").write_text(
        "distributed_type: FSDP\nfsdp_config: {fsdp_version: 2}\nnum_processes: 2\nnum_machines: 1\nuse_cpu: true\n"
        f"machine_rank: 0\nmain_process_port: {port()}\n"
    )
    launch = ["accelerate.commands.launch", "--config_file", str(accelerate)]
    begin(config, tmp_path / "shared", launch, "--resume")

    weights, others = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "shared"))
    assert weights.keys() == others.keys()
    for name in weights:
        assert torch.equal(weights[name], others[name]), name
    assert metrics(tmp_path / "whole")[:STEPS] == metrics(tmp_path / "shared")[:STEPS]
    for entry in (tmp_path / "features").iterdir():  # which are named by the model, as each process had loaded it
        assert (tmp_path / "features of parts" / entry.name).read_bytes() == entry.read_bytes()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "accelerate is configured with DeepSpeed"),
        ({"ACCELERATE_USE_FSDP": "true"}, "fsdp_version must be 2, got 1"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2", "FSDP_OFFLOAD_PARAMS": "true"}, "must be false"),
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, "miniature has no model to share out"),
    ],
)
def test_configurations_of_accelerate_that_cannot_be_followed(
    settings: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ScoreError, match=says):
        train(output=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_one_process_has_the_whole_model(config: dict[str, Any], tmp_path: Path) -> None:
    config["environment_options"]["sharded"] = True
    config["training"]["max_steps"] = 1
    (file := tmp_path / "train.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    assert train(file, output=tmp_path / "run") is not None
