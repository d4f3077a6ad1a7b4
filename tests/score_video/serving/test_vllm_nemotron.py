"""Nemotron Nano VL on the real engine, which puts a video's frames together by the plugin's mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from engines import RATE, needs_vllm, run_engines
from tiny_nemotron import TOKENS_PER_FRAME, VIDEO, save_tiny_nemotron
from workload import contents

from score_ext.budget import evs_count

pytestmark = needs_vllm

NAMES = ["video", "two videos", "text and video", "text"]


def job(name: str, model: Path, rate: float, **options: Any) -> dict[str, Any]:
    options |= {"dtype": "bfloat16", "load_format": "dummy", "trust_remote_code": True}
    options["enable_prefix_caching"] = False  # with it vLLM 0.32's Mamba layers end the engine on CPUs
    given = {"name": name, "model": str(model), "setting": "surprise", "rate": rate, "method": "evs"}
    return {**given, "options": options, "requests": [NAMES, ["two videos"]], "placeholder": VIDEO}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("nemotron")
    model = folder / "nemotron_nano_vl"
    save_tiny_nemotron(model)
    jobs = [
        job("pruned", model, RATE),
        job("chunked", model, RATE, max_num_batched_tokens=64, max_num_seqs=4),
        job("keep all", model, 1e-17),
        job("rate 0", model, 0.0),
    ]
    return run_engines(folder, jobs)


def test_how_many_are_kept(done: dict[str, Any]) -> None:
    counts = {len(video): evs_count(len(video), TOKENS_PER_FRAME, RATE) for video in contents()["two videos"][1]}
    assert {len(kept) for kept in done["pruned"]["kept"]} == set(counts.values())
    (first,) = contents()["video"][1]
    whole, pruned = (len(done[name]["answers"]["video"]["prompt"]) for name in ("rate 0", "pruned"))
    assert whole - pruned == len(first) * TOKENS_PER_FRAME - counts[len(first)]


def test_keeping_all_tokens_is_the_engine_without_pruning(done: dict[str, Any]) -> None:
    outputs, wanted = (
        {name: answer["output"] for name, answer in done[rate]["answers"].items()} for rate in ("keep all", "rate 0")
    )
    assert outputs == wanted
    assert len({tuple(output) for output in wanted.values()}) > len(NAMES) // 2
    assert {name: answer["output"] for name, answer in done["pruned"]["answers"].items()} != wanted


def test_chunks_change_nothing(done: dict[str, Any]) -> None:
    assert done["chunked"]["kept"] == done["pruned"]["kept"]
    assert done["chunked"]["answers"] == done["pruned"]["answers"]
