"""The plugin in the real engine: what is kept, how many, and that positions, chunks, caches and batches are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from engines import HALF, RATE, needs_vllm, run_engines
from workload import AT_ONCE, contents

from score_ext.budget import evs_count, vidcom2_count
from score_video.compressor import Compressor
from score_video.mllm import compress_inputs
from score_video.testing import save_tiny_model

pytestmark = needs_vllm

AT_ONCE_NAMES = [f"at once {number}" for number in range(AT_ONCE)]


def hugging_face_inputs(model: Path, name: str) -> tuple[Any, dict[str, Any]]:
    """transformers' model and the request as its processor makes it."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    text, videos, images = contents()[name]
    metadata = [{"fps": 2.0, "frames_indices": list(range(len(v))), "total_num_frames": len(v)} for v in videos]
    inputs = AutoProcessor.from_pretrained(model)(
        text=[text],
        videos=videos or None,
        images=images or None,
        video_metadata=metadata or None,
        do_sample_frames=False,
        return_tensors="pt",
    )
    dtype = torch.bfloat16 if model.name in HALF else torch.float32
    return AutoModelForImageTextToText.from_pretrained(model, dtype=dtype), dict(inputs)


def video_token(model: Path) -> int:
    from transformers import AutoConfig

    token: int = AutoConfig.from_pretrained(model).video_token_id
    return token


def grids(model: Path, name: str) -> list[tuple[int, int]]:
    """Frames and tokens of a frame of each video in a request."""
    patch = 28 if model.name == "qwen2_5_vl" else 32
    videos = contents()[name][1]
    return [(len(v) // 2, round(v.shape[1] / patch) * round(v.shape[2] / patch)) for v in videos]


@pytest.mark.parametrize("name", ["video", "image and video", "two videos", "text and video", *AT_ONCE_NAMES])
def test_as_many_placeholders_as_vllm_s_formula(model: Path, compressed: dict[str, Any], name: str) -> None:
    prompt = compressed["plain"]["answers"][name]["prompt"]
    assert prompt.count(video_token(model)) == sum(evs_count(t, n, RATE) for t, n in grids(model, name))


def test_keeps_the_tokens_that_compress_inputs_keeps(model: Path, policy: Path, compressed: dict[str, Any]) -> None:
    network, inputs = hugging_face_inputs(model, "two videos")
    method = Compressor.from_pretrained(policy).method
    kept = compress_inputs(network, inputs, Compressor(method, 1 - RATE)).kept
    # encoded first: the one video of the first request, which is cached for the others; then the second of two videos
    check_kept(model, compressed["plain"]["kept"][:2], [index.tolist() for index in kept])


def check_kept(model: Path, got: list[list[int]], wanted: list[list[int]]) -> None:
    """Of a model in float32 the same tokens; in bfloat16, which the two towers round in their own ways, nearly."""
    if model.name not in HALF:
        assert got == wanted
        return
    for ours, theirs in zip(got, wanted, strict=True):
        assert len(ours) == len(theirs) and len(set(ours) & set(theirs)) >= 0.9 * len(theirs)


@pytest.mark.parametrize("name", ["video", "image and video", "two videos", "text and video"])
def test_answers_as_transformers_do_to_the_same_tokens(
    model: Path, policy: Path, compressed: dict[str, Any], name: str
) -> None:
    if (model.name, name) == ("qwen2_5_vl", "two videos"):
        pytest.skip("the text after a video that is longer than wide has other positions in transformers than in vLLM")
    network, inputs = hugging_face_inputs(model, name)
    method = Compressor.from_pretrained(policy).method
    shorter = compress_inputs(network, inputs, Compressor(method, 1 - RATE))
    check_answer(model, network, shorter, compressed["plain"]["answers"][name]["output"])


def check_answer(model: Path, network: Any, shorter: Any, output: list[int]) -> None:
    """In float32 all of it; in bfloat16 its first token, before one that differs can change what follows."""
    network.generation_config.eos_token_id = None  # the engine takes the end for a token like any other, too
    answer = network.generate(**shorter, max_new_tokens=6, do_sample=False)
    length = 1 if model.name in HALF else 6
    assert answer[0, shorter.prompt_length :][:length].tolist() == output[:length]


def test_qwen3_5_moe(policy: Path, tmp_path: Path) -> None:
    """Qwen3.5 with a mixture of experts: once through, with two videos in a prompt."""
    model = tmp_path / "qwen3_5_moe"
    save_tiny_model(model, "qwen3_5_moe")
    job = {"name": "moe", "model": str(model), "setting": str(policy), "rate": RATE, "method": "evs"}
    options = {"dtype": "bfloat16"}
    done = run_engines(tmp_path, [{**job, "options": options, "requests": [["two videos"], ["text"]]}])["moe"]
    network, inputs = hugging_face_inputs(model, "two videos")
    shorter = compress_inputs(network, inputs, Compressor(Compressor.from_pretrained(policy).method, 1 - RATE))
    check_kept(model, done["kept"], [index.tolist() for index in shorter.kept])
    check_answer(model, network, shorter, done["answers"]["two videos"]["output"])


def test_features_in_place_of_a_video(model: Path, compressed: dict[str, Any]) -> None:
    """Their requests have no second_per_grid_ts; vLLM takes a second, and the videos here have one."""
    if model.name != "qwen2_5_vl":
        pytest.skip("vLLM's Qwen3-VL takes no features without times")
    answers = compressed["embedded"]["answers"]
    assert len(answers) == 2
    assert answers == {name: compressed["plain"]["answers"][name] for name in answers}


def test_chunks_and_cached_prefixes_change_nothing(compressed: dict[str, Any]) -> None:
    assert compressed["chunked"]["answers"] == compressed["plain"]["answers"]
    assert compressed["chunked"]["kept"] == compressed["plain"]["kept"]


def test_a_cached_video_is_answered_the_same_and_not_chosen_from_again(compressed: dict[str, Any]) -> None:
    for engine in ("plain", "chunked"):
        answers = compressed[engine]["answers"]
        assert answers["two videos again"] == answers["two videos"]
        assert len(compressed[engine]["kept"]) == 2 + AT_ONCE


def test_keeping_all_tokens_is_the_stock_engine(compressed: dict[str, Any], stock: dict[str, Any]) -> None:
    outputs, wanted = (
        {name: answer["output"] for name, answer in results["answers"].items()}
        for results in (compressed["keep all"], stock["rate 0"])
    )
    assert outputs == wanted


def test_rate_0_is_the_stock_engine(compressed: dict[str, Any], stock: dict[str, Any]) -> None:
    assert compressed["rate 0"]["answers"] == stock["rate 0"]["answers"]
    assert compressed["rate 0"]["kept"] == []


def test_the_stock_engine_shows_that_what_is_seen_changes_the_answer(stock: dict[str, Any]) -> None:
    answers = {tuple(answer["output"]) for name, answer in stock["rate 0"]["answers"].items() if "again" not in name}
    assert len(answers) > AT_ONCE // 2  # or the comparisons above would say little


def test_not_set_it_touches_nothing(stock: dict[str, Any]) -> None:
    assert not any(stock["state"].values()), stock["state"]


def test_vllm_s_own_methods_run_on_the_cpu(model: Path, request: pytest.FixtureRequest) -> None:
    if model.name in HALF:
        pytest.skip("vLLM 0.32's own pruning ends the engine with Qwen3.5, which has no video_pruning_method")
    healed = request.getfixturevalue("healed")
    count = vidcom2_count if model.name == "qwen3_vl" else evs_count
    prompt = healed["own"]["answers"]["text and video"]["prompt"]
    assert prompt.count(video_token(model)) == sum(count(t, n, RATE) for t, n in grids(model, "text and video"))
    assert healed["log"].count("score-video has set its is_multimodal_pruning_enabled") == 1
    assert [name for name, changed in healed["state"].items() if changed] == ["runner patched"]


def test_says_what_it_does(compressed: dict[str, Any], policy: Path) -> None:
    log = compressed["log"]
    assert f"chooses the tokens of videos by '{policy}'; how many is vLLM's formula of 'evs' at rate {RATE}" in log
    assert "videos go in whole: there is no --video-pruning-rate" in log


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_our_evs_keeps_what_vllm_s_keeps(dtype: torch.dtype) -> None:
    from vllm.multimodal.video_prune.evs import compute_retention_mask

    from score_video.packed import PackedVideos

    tokens = torch.randn(6, 4, 5, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    theirs = compute_retention_mask(tokens.view(-1, 32).float(), (6, 8, 10), 2, RATE).nonzero()[:, 0]
    ours = Compressor("evs").select(PackedVideos.from_frames([tokens]), keep=[evs_count(6, 20, RATE)]).index
    assert torch.equal(ours, theirs)
