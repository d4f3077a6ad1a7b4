"""Saved models and policies, and the engines that tests look at: each process of vLLM is started once for all of them.

Without vLLM nothing of it runs (``make test-vllm`` runs it, in an environment of its own).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engines import RATE, dtype_of, run_engines, save_policy
from workload import AT_ONCE, contents

from score_video.testing import save_tiny_model

KEEP_ALL = 1e-17  # a rate that vLLM takes for pruning, and 1 - rate is 1


@pytest.fixture(scope="session", params=["qwen2_5_vl", "qwen3_vl", "qwen3_5"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model; the folder's name is the family's."""
    folder = tmp_path_factory.mktemp("models") / request.param
    save_tiny_model(folder, request.param)
    return folder


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved compressor whose policy goes with every tower."""
    return save_policy(tmp_path_factory.mktemp("policies") / "relative", state="relative")


def _job(name: str, model: Path, setting: str | None, rate: float, **options: Any) -> dict[str, Any]:
    """What :func:`run_engines` runs: all requests, those "at once" together; options are the engine's."""
    names = list(contents())
    options["dtype"] = dtype_of(model)
    requests = [*([name] for name in names[:-AT_ONCE]), names[-AT_ONCE:]]
    given = {"name": name, "model": str(model), "setting": setting, "rate": rate, "method": "evs", "options": options}
    return {**given, "requests": requests}


@pytest.fixture(scope="session")
def compressed(model: Path, policy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of engines with the plugin on: "plain", "chunked", "keep all", "rate 0"; of Qwen2.5-VL "embedded"."""
    small_chunks = {"max_num_batched_tokens": 24, "max_num_seqs": AT_ONCE}
    jobs = [
        _job("plain", model, str(policy), RATE, enable_prefix_caching=False),
        _job("chunked", model, str(policy), RATE, enable_prefix_caching=True, block_size=32, **small_chunks),
        _job("keep all", model, str(policy), KEEP_ALL),
        _job("rate 0", model, str(policy), 0.0),
    ]
    if model.name == "qwen2_5_vl":  # vLLM's Qwen3-VL takes no features without times
        job = _job("embedded", model, str(policy), RATE, enable_mm_embeds=True)
        jobs.append({**job, "requests": [["video"], ["text and video"]], "embedded": True})
    return run_engines(tmp_path_factory.mktemp("compressed"), jobs)


@pytest.fixture(scope="session")
def stock(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of an engine with the plugin installed and not set: "rate 0"."""
    return run_engines(tmp_path_factory.mktemp("stock"), [_job("rate 0", model, None, 0.0)])


@pytest.fixture(scope="session")
def healed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Results of an engine with a method of vLLM's own, mended for the CPU: "own"."""
    job = _job("own", model, "vllm", RATE)
    job["method"] = "vidcom2" if model.name == "qwen3_vl" else "evs"
    # a second video in a prompt (Qwen2.5-VL), or one at its beginning (Qwen3-VL), is the end of vLLM's own pruning
    job["requests"] = [["text and video"], ["text"]]
    return run_engines(tmp_path_factory.mktemp("healed"), [job])
