"""Two processes (gloo, on the CPU) do what one does with their batches together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers import toy
from helpers.toy import UNDECIDED, assert_close, examples, trainer, weights
from safetensors.torch import load_file

TOY = str(toy.__file__)

SETTINGS: dict[str, dict[str, Any]] = {
    "several steps of a rollout": {"num_iterations": 2},
    # normalised over the batch, which is that of all processes
    "by objective": {
        "advantage": "by_objective",
        "scale_rewards": True,
        "sampling": "counted",
        "compression_reward": "linear",
    },
    "accumulation": {"gradient_accumulation_steps": 2},
    "a third of the data cannot be read": {"skip_broken": True},
}


def in_two_processes(runs: list[dict[str, Any]]) -> None:
    """toy.py as torchrun starts it."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    environment = {**os.environ, "MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    running = [
        subprocess.Popen(
            [sys.executable, TOY, json.dumps(runs)],
            env={**environment, "RANK": rank, "LOCAL_RANK": rank, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    said = [process.communicate(timeout=600)[1] for process in running]
    assert all(process.returncode == 0 for process in running), "\n".join(said)


def log(output: Path) -> list[dict[str, float]]:
    state = json.loads((output / "checkpoint-6" / "trainer_state.json").read_text())
    return state["log_history"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run in two processes, with half of the batch in each; and one that goes on from one process."""
    folder = tmp_path_factory.mktemp("two")
    trainer(folder / "resumed", max_steps=4).train()
    runs = [{"output": str(folder / name), "per_device_train_batch_size": 2, **SETTINGS[name]} for name in SETTINGS]
    resumed = {"output": str(folder / "resumed"), "per_device_train_batch_size": 2, "resume": True}
    in_two_processes([*runs, resumed])
    return folder


@pytest.mark.parametrize("name", [*SETTINGS, "resumed"])
def test_two_processes_agree_with_one(folder: Path, tmp_path: Path, name: str) -> None:
    settings = SETTINGS.get(name, {})
    data = examples(broken=settings.get("skip_broken", False))
    one = trainer(tmp_path, data=data, per_device_train_batch_size=4, **settings)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="skipped")
        one.train()
    two = load_file(folder / name / "final" / "model.safetensors")
    assert_close(two, weights(one.model), but=() if "sampling" in settings else UNDECIDED)
    for line, other in zip(log(tmp_path), log(folder / name), strict=True):
        assert line.keys() == other.keys()
        for metric in line.keys() - {"epoch"}:  # a fraction of what the process that began was to train
            # entropy is a ratio of sums, of which the mean over the processes is taken
            near = 1e-2 if metric == "entropy" else 1e-4
            assert other[metric] == pytest.approx(line[metric], abs=near), metric
