"""Starts vLLM, in processes and as a server, as the tests and the benchmark need it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from score_video.compressor import Compressor
from score_video.policy import SurprisePolicy, SurprisePolicyConfig

needs_vllm = pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vLLM is not installed")
RATE = 0.75
HALF = ("qwen3_5", "qwen3_5_moe")
"""Families whose linear attention vLLM computes on CPUs in bfloat16 alone."""


def dtype_of(model: Path) -> str:
    """What a model is run in; its folder is called like its family."""
    return "bfloat16" if model.name in HALF else "float32"


HERE = Path(__file__).parent
SITE = HERE.parents[2] / "tools" / "torchvision_site"


def environment(setting: str | None = None) -> dict[str, str]:
    """Of a process that runs vLLM on this machine's CPU, without network, with the plugin set (None: switched off)."""
    variables = {name: value for name, value in os.environ.items() if name != "SCORE_VIDEO_COMPRESSOR"}
    path = os.pathsep.join(filter(None, [str(SITE), str(HERE), os.environ.get("PYTHONPATH", "")]))
    variables |= {
        "PYTHONPATH": path,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
    }
    return variables | ({} if setting is None else {"SCORE_VIDEO_COMPRESSOR": setting})


def save_policy(folder: Path, **config: Any) -> Path:
    """A compressor with an untrained policy of seed 0; ``config`` as for :class:`SurprisePolicyConfig`."""
    torch.manual_seed(0)
    network = SurprisePolicy(SurprisePolicyConfig(**config))
    torch.nn.init.normal_(network.output.weight)  # logits that differ
    Compressor(network, 0.1).save_pretrained(folder)
    return folder


def run_engines(folder: Path, jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """Runs the jobs of ``engine_process.py`` in one process; its results by the jobs' names."""
    (folder / "jobs.json").write_text(json.dumps(jobs))
    variables = {**environment(jobs[0]["setting"]), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    command = [sys.executable, str(HERE / "engine_process.py"), "jobs.json", "results.json"]
    with (folder / "log.txt").open("w") as log:
        done = subprocess.run(command, cwd=folder, env=variables, stdout=log, stderr=subprocess.STDOUT, timeout=900)
    if done.returncode:
        raise AssertionError(f"vLLM ended with {done.returncode}:\n" + (folder / "log.txt").read_text()[-6000:])
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return {**results, "log": (folder / "log.txt").read_text()}


@contextmanager
def serve(
    model: Path,
    folder: Path,
    setting: str | None,
    options: Sequence[str] = (),
    patience: float = 600.0,
    variables: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """A server on loopback; gives the address of its OpenAI API. Its log is log.txt in ``folder``.

    Args:
        model: its folder; the model is called "tiny".
        setting: what the plugin's variable is set to, or None.
        options: of ``vllm serve``.
        patience: seconds it may take to come up.
        variables: more of its environment.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # what `vllm serve` runs; the command itself asks for the version of "vllm", which vllm-cpu is not called
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += [
        "--served-model-name",
        "tiny",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--dtype",
        dtype_of(model),
        "--max-model-len",
        "16384",
        *options,
    ]
    with (folder / "log.txt").open("w") as log:
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(setting) | dict(variables or {}),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_until_healthy(server, f"http://127.0.0.1:{port}/health", folder / "log.txt", patience)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(60)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(server.pid, signal.SIGKILL)  # workers that outlive it


def _wait_until_healthy(server: subprocess.Popen[bytes], url: str, log: Path, patience: float) -> None:
    deadline = time.monotonic() + patience
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    text = log.read_text()
    causes = "\n".join(line for line in text.splitlines() if "Error: " in line)  # workers', far above the end
    raise AssertionError(f"the server did not come up (status {server.poll()}):\n{causes}\n{text[-3000:]}")
