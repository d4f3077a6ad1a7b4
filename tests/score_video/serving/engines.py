"""Starts vLLM, in processes and as a server, as the tests and the benchmark need it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SITE = HERE.parents[2] / "tools" / "vllm_site"


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
