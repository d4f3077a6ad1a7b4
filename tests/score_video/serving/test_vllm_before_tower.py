"""Tokens chosen before the tower, in the real engine: those that transformers keeps, and its answers; and refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from engines import RATE, dtype_of, environment, needs_vllm, run_engines
from test_vllm_engine import check_answer, check_kept, grids, hugging_face_inputs, video_token

from score_ext.budget import evs_count
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.mllm import compress_inputs
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.testing import save_tiny_model

pytestmark = needs_vllm

NAMES = ["video", "image and video", "two videos", "text and video"]
FAMILIES = ["qwen2_5_vl", "qwen3_vl", "qwen3_5"]


def behind_gate() -> Compressor:
    """An untrained policy, which says that it was trained behind a gate."""
    torch.manual_seed(0)
    network = SurprisePolicy(SurprisePolicyConfig(state="relative", behind_gate=True))
    torch.nn.init.normal_(network.output.weight)  # logits that differ
    return Compressor(network, 1 - RATE, before_tower=Compressor("evs-dithered", 0.6))


COMPRESSORS = {
    "divprune": lambda: Compressor("divprune", 1 - RATE, before_tower=Compressor("evs-dithered", 0.5), halo=1),
    "policy": behind_gate,
}


@pytest.fixture(scope="module", params=FAMILIES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / request.param
    save_tiny_model(folder, request.param)
    return folder


@pytest.fixture(scope="module")
def results(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of an engine with each compressor: one prefill in small chunks, one request or all of them at a time."""
    folder, jobs = tmp_path_factory.mktemp("gated"), []
    for name, make in COMPRESSORS.items():
        make().save_pretrained(folder / name)
        job = {"name": name, "model": str(model), "setting": str(folder / name), "rate": RATE, "method": "evs"}
        options: dict[str, Any] = {"dtype": dtype_of(model)}
        if name == "policy":
            options |= {"max_num_batched_tokens": 24, "max_num_seqs": 4, "enable_prefix_caching": False}
        requests = [NAMES, ["text"]] if name == "policy" else [*([one] for one in NAMES), ["image"]]
        jobs.append({**job, "options": options, "requests": requests})
    return run_engines(folder, jobs)


@pytest.mark.parametrize("name", COMPRESSORS)
def test_keeps_the_tokens_that_compress_inputs_keeps(model: Path, results: dict[str, Any], name: str) -> None:
    network, inputs = hugging_face_inputs(model, "two videos")
    kept = compress_inputs(network, inputs, COMPRESSORS[name]()).kept
    ours = {len(index): index for index in results[name]["kept"]}
    # the two videos have different counts; each is encoded once, and cached for the other requests
    assert len(results[name]["kept"]) == len(ours) == 2
    check_kept(model, [ours[len(index)] for index in kept], [index.tolist() for index in kept])
    whole = compress_inputs(network, inputs, Compressor("divprune", 1 - RATE)).kept
    assert any(not torch.equal(index, other) for index, other in zip(kept, whole, strict=True))


@pytest.mark.parametrize("name", COMPRESSORS)
@pytest.mark.parametrize("request_name", NAMES)
def test_answers_as_transformers_do(model: Path, results: dict[str, Any], name: str, request_name: str) -> None:
    if (model.name, request_name) == ("qwen2_5_vl", "two videos"):
        pytest.skip("the text after a video that is longer than wide has other positions in transformers than in vLLM")
    network, inputs = hugging_face_inputs(model, request_name)
    shorter = compress_inputs(network, inputs, COMPRESSORS[name]())
    answer = results[name]["answers"][request_name]
    check_answer(model, network, shorter, answer["output"])
    counts = [evs_count(t, n, RATE) for t, n in grids(model, request_name)]
    assert answer["prompt"].count(video_token(model)) == sum(counts)


def test_says_what_it_does(results: dict[str, Any]) -> None:
    assert "chooses by 'evs-dithered' what the vision tower sees, and a halo of 1" in results["log"]


def test_an_engine_that_cannot_do_it_does_not_start(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model", "qwen3_vl")
    Compressor("divprune", 0.1, before_tower=Compressor("uniform", 0.3)).save_pretrained(tmp_path / "gated")
    code = """
from vllm import LLM
for options in {"mm_encoder_tp_mode": "data"}, {"compilation_config": {"cudagraph_mm_encoder": True}}:
    try:
        LLM("model", max_model_len=1024, distributed_executor_backend="uni", video_pruning_rate=0.9, **options)
    except ValueError as error:
        print("refused:", error)
"""
    variables = {**environment(str(tmp_path / "gated")), "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=600)
    refusals = [line for line in done.stdout.splitlines() if line.startswith("refused: SCORE_VIDEO_COMPRESSOR: ")]
    assert len(refusals) == 2, done.stdout[-1000:] + done.stderr[-3000:]
    assert "before_tower must be None with --mm-encoder-tp-mode data" in refusals[0]
    assert "before_tower must be None with cudagraph_mm_encoder" in refusals[1]


class Qwen3_VisionTransformer:  # noqa: N801 - called as vLLM's
    pass


TOWER = Qwen3_VisionTransformer()


def check(
    tower: Any, *, mode: str = "weights", graphs: bool = False, rate: float = RATE, retention: float = 0.3
) -> None:
    from score_video.serving.vllm_gate import check_gate

    gate = Compressor("norm", 0.1, before_tower=Compressor("uniform", retention)).gate
    assert gate is not None
    multimodal = SimpleNamespace(mm_encoder_tp_mode=mode)
    config = SimpleNamespace(
        model_config=SimpleNamespace(multimodal_config=multimodal),
        compilation_config=SimpleNamespace(cudagraph_mm_encoder=graphs),
    )
    check_gate(gate, "TheModel", tower, config, rate)


def refused(tower: Any, **engine: Any) -> str:
    with pytest.raises(ScoreError) as error:
        check(tower, **engine)
    return str(error.value)


def test_refuses_by_name() -> None:
    said = refused(torch.nn.Identity())
    assert "before_tower must be None for TheModel: of vLLM's vision towers Qwen2_5_VisionTransformer, Qwen3" in said
    assert "before_tower must be None with --mm-encoder-tp-mode data" in refused(TOWER, mode="data")
    assert "before_tower must be None with cudagraph_mm_encoder" in refused(TOWER, graphs=True)
    said = refused(TOWER, rate=0.5)
    assert "before_tower.retention must be at least what --video-pruning-rate 0.5 leaves, 0.5, or" in said
    assert said.endswith("got 0.3")


@pytest.mark.parametrize(("retention", "rate"), [(0.3, 0.7), (0.1, 0.9), (1, 1e-17), (0.3, 0.9)])
def test_takes_as_much_as_the_rate_leaves(retention: float, rate: float) -> None:
    check(TOWER, retention=retention, rate=rate)


def test_a_model_with_another_tower_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from score_video.serving import vllm_base, vllm_models

    class Stock:
        visual = torch.nn.Identity()

        def __init__(self, **given: Any) -> None: ...

    Compressor("norm", 0.1, before_tower=Compressor("uniform", 0.3)).save_pretrained(tmp_path / "gated")
    monkeypatch.setenv("SCORE_VIDEO_COMPRESSOR", str(tmp_path / "gated"))
    monkeypatch.setattr(vllm_base, "get_tensor_model_parallel_rank", lambda: 0)
    spec: tuple[str, float] | None = ("evs", 0.9)
    multimodal = SimpleNamespace(get_video_pruning_spec=lambda: spec)
    config = SimpleNamespace(model_config=SimpleNamespace(multimodal_config=multimodal, uses_mrope=True))
    for kind in ("run", "timed", "masked"):
        made: Any = type("Made", (vllm_models._KINDS[kind], Stock), {})
        with pytest.raises(ScoreError, match="before_tower must be None for Made: of vLLM's vision towers"):
            made(vllm_config=config)
    spec = None
    made(vllm_config=config)  # videos go in whole
