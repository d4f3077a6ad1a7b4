"""``score train`` on two machines: two torchruns of different node ranks that meet over the loopback, as SLURM starts
them; and a process that is killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

STEPS = 6
CONFIG = {
    "data": {"train": {"num_videos": 64}, "validation": {"num_videos": 2}},
    "policy": {"hidden_sizes": [8]},
    "training": {
        "max_steps": STEPS,
        "per_device_train_batch_size": 1,
        "num_generations": 2,
        "save_steps": 2,
        "logging_steps": 2,
        "eval_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
    },
}


def begin(config: Path, output: Path, *options: str) -> list[subprocess.Popen[str]]:
    """The two torchruns, node 0 first."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
    torchrun += ["--master-addr", "127.0.0.1", "--master-port", port]
    command = ["-m", "score_video.cli", "train", "--config", str(config), "--output-dir", str(output), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return [
        subprocess.Popen(
            [*torchrun, "--node-rank", rank, *command],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]


def end(nodes: list[subprocess.Popen[str]]) -> tuple[list[int], str]:
    """Exit statuses, and what was said on stderr."""
    said = [node.communicate(timeout=400)[1] for node in nodes]
    return [node.returncode for node in nodes], "\n".join(said)


def worker_of(node: subprocess.Popen[str]) -> int:
    """The process that a torchrun started."""
    (child,) = Path(f"/proc/{node.pid}/task/{node.pid}/children").read_text().split()
    return int(child)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump(CONFIG), encoding="utf-8")
    return file


def test_two_nodes_one_of_which_is_killed_and_both_resumed(config: Path, tmp_path: Path) -> None:
    """It ends in the weights, to the bit, of a run that nobody killed; the folder is one that both nodes see."""
    whole = tmp_path / "whole"
    statuses, said = end(begin(config, whole))
    assert statuses == [0, 0], said

    output = tmp_path / "killed"
    nodes = begin(config, output)
    deadline = time.monotonic() + 300
    while not (output / "checkpoint-2").exists():
        assert time.monotonic() < deadline
        assert nodes[1].poll() is None
        time.sleep(0.02)
    os.kill(worker_of(nodes[1]), signal.SIGKILL)
    statuses, said = end(nodes)
    assert 0 not in statuses, said
    assert not (output / f"checkpoint-{STEPS}").exists()

    statuses, said = end(begin(config, output, "--resume"))
    assert statuses == [0, 0], said
    weights, others = (load_file(folder / "model.safetensors") for folder in (whole, output))
    assert weights.keys() == others.keys()
    for name in weights:
        assert torch.equal(weights[name], others[name]), name
