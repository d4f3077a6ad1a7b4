"""Inputs of single families: chunks that are joined to videos, and what is refused, by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny import Prompts
from tiny_families import ALL, works

from score_video.mllm import encode_inputs

made = functools.cache(lambda name: ALL[name]())


def frames(name: str, prompts: Prompts, layout: Any = None) -> list[int]:
    """Of each video that is found."""
    model = made(name).model
    with torch.no_grad():
        encoded = encode_inputs(model, made(name).batch(prompts).inputs(), visual_layout=layout)
    assert encoded is not None
    videos = encoded.visuals.videos
    return (videos.lengths // videos.tokens_per_frame).tolist()


CHUNKED = [name for name in ("kimi_k25", "minimax_m3_vl", "minicpmv4_6", "minicpmv4_7") if works(name)]


@pytest.mark.parametrize("name", CHUNKED)
def test_chunks_with_little_between_them_are_one_video(name: str) -> None:
    assert frames(name, [[5, ("video", 4), 6]]) == [4]
    assert frames(name, [[5, ("video", 2), 60, ("video", 3), 4]]) == [2, 3]  # a text between
    assert frames(name, [[5, ("video", 2), "image", ("video", 3), 4]]) == [2, 3]
    assert frames(name, [[5, ("video", 2), 3], [2, ("video", 3), 4]]) == [2, 3]


@pytest.mark.parametrize("name", [name for name in CHUNKED if name != "minimax_m3_vl"])
def test_videos_side_by_side_are_told_apart_by_their_layout(name: str) -> None:
    side_by_side: Prompts = [[5, ("video", 2), ("video", 3), 4]]
    assert frames(name, side_by_side) == [5]
    assert frames(name, side_by_side, [[("video", 2), ("video", 3)]]) == [2, 3]
    for wrong in ([[("video", 2)]], [[("video", 5)], []], [[("video", 0), ("video", 5)]]):
        with pytest.raises(ValueError, match="visual_layout must have a list for each of 1 prompts, with 5 chunks"):
            frames(name, side_by_side, wrong)


def nothing(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda inputs: inputs.pop(name)


def set_to(name: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda inputs: inputs.update({name: value})


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("qwen3_5", nothing("video_grid_thw"), "inputs must have video_grid_thw beside pixel_values_videos"),
        ("qwen3_5", nothing("mm_token_type_ids"), "inputs must have mm_token_type_ids, as the processor makes them"),
        ("gemma4", nothing("num_frames_per_video"), "inputs must have num_frames_per_video beside"),
        ("gemma4", nothing("video_position_ids"), "inputs must have video_position_ids beside"),
        ("minicpmv4_6", nothing("target_sizes_videos"), "inputs must have target_sizes_videos beside"),
        ("molmo2", nothing("video_grids"), "inputs must have video_grids beside"),
        ("molmo2", set_to("pixel_values", torch.zeros(1)), "inputs must not have pixel_values beside"),
        (
            "molmo2",
            set_to("mm_token_type_ids", torch.zeros(1, 3)),
            r"must have the shape \[1, \d+\] of input_ids, got \[",
        ),
        ("nemotron_h_omni", set_to("pixel_values", torch.zeros(1)), "inputs must not have pixel_values beside"),
        (
            "video_llama_3",
            set_to("video_compression_mask", torch.tensor([True] * 20 + [False] * 4)),
            "must be True everywhere, got False for 4 of 24 tokens: make the inputs with use_token_compression=False",
        ),
    ],
)
def test_what_is_refused(name: str, change: Callable[[dict[str, Any]], None], says: str) -> None:
    if not works(name):
        pytest.skip("an older transformers")
    inputs = made(name).batch([[5, ("video", 4), 6]]).inputs()
    change(inputs)
    with pytest.raises(ValueError, match=says):
        encode_inputs(made(name).model, inputs)


def test_a_model_that_prunes_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    if not works("nemotron_h_omni"):
        pytest.skip("an older transformers")
    model = made("nemotron_h_omni").model
    monkeypatch.setattr(model, "video_pruning_rate", 0.5)
    with pytest.raises(ValueError, match=r"video_pruning_rate 0, or it drops tokens of its own, got 0\.5"):
        encode_inputs(model, made("nemotron_h_omni").batch([[5, ("video", 4), 6]]).inputs())


def test_a_layout_where_the_inputs_tell_is_refused() -> None:
    with pytest.raises(ValueError, match="visual_layout must be None for qwen3_5: its inputs tell"):
        frames("qwen3_5", [[5, ("video", 4), 6]], [[("video", 4)]])
