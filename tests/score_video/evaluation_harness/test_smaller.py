"""Smaller videos of as many tokens: their grids, and what a processor makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.saved_square_models import save_square_model

from score_ext.budget import keep_count
from score_video.errors import ScoreError
from score_video.evaluation_harness.smaller import FEWER_FRAMES, RESIZE, SMALLER, Grid, SmallerVideos, smaller_grid
from score_video.mllm.conversation import chat_text, clip_of_frames, processor_inputs
from score_video.mllm.load import load_processor


@pytest.mark.parametrize("kind", SMALLER)
def test_grids(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        sizes = torch.randint(1, 40, (3,), generator=generator).tolist()
        grid = Grid(*sizes)
        keep = int(torch.randint(1, grid.tokens + 1, (1,), generator=generator))
        small = smaller_grid(grid, keep, kind)
        assert 1 <= small.tokens <= keep
        assert (small.steps, small.rows, small.columns) <= (grid.steps, grid.rows, grid.columns)
        assert small.rows <= grid.rows
        assert small.columns <= grid.columns
        assert smaller_grid(grid, grid.tokens, kind) == grid


def test_grids_by_hand() -> None:
    grid = Grid(16, 20, 36)
    assert smaller_grid(grid, 2880, RESIZE) == Grid(16, 10, 18)
    assert smaller_grid(grid, 2880, FEWER_FRAMES) == Grid(4, 20, 36)
    assert smaller_grid(grid, 1152, FEWER_FRAMES) == Grid(2, 18, 32)  # one and a half: two that are a little smaller
    assert smaller_grid(grid, 7, RESIZE) == Grid(7, 1, 1)


@pytest.mark.parametrize("kind", SMALLER)
@pytest.mark.parametrize("retention", [1.0, 0.25, 0.1, 0.01])
def test_tokens_of_a_processor(kind: str, retention: float, saved_qwen: Path) -> None:
    """And all else of the prompt is as of the whole video: text, times of frames."""
    processor = load_processor(str(saved_qwen))
    smaller = SmallerVideos(processor, kind, retention)
    frames = torch.randint(0, 256, (9, 150, 260, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    clip, text = clip_of_frames(frames, 2.0), chat_text(processor, "What happens?")
    whole, small = (processor_inputs(each, clip, text) for each in (processor, smaller))
    video = processor.tokenizer.convert_tokens_to_ids("<|video_pad|>")
    tokens, kept = (int((inputs["input_ids"] == video).sum()) for inputs in (whole, small))
    steps = int(whole["video_grid_thw"][0, 0])
    keep = keep_count(steps, tokens // steps, retention)
    assert 0.6 * keep < kept <= keep
    assert smaller.shares == [pytest.approx(tokens / kept)]
    rest = (inputs["input_ids"][inputs["input_ids"] != video] for inputs in (whole, small))
    assert torch.equal(*rest)
    if retention == 1:
        assert {name for name in whole if not torch.equal(whole[name], small[name])} <= {"pixel_values_videos"}
        assert (whole["pixel_values_videos"] - small["pixel_values_videos"]).abs().mean() < 0.05  # scaled by another


def test_fewer_frames_are_spread_evenly(saved_qwen: Path) -> None:
    """Each frame is of its own grey, so that it can be told which were taken."""
    frames = torch.arange(0, 160, 10, dtype=torch.uint8)[:, None, None, None].expand(16, 56, 56, 3)
    smaller = SmallerVideos(load_processor(str(saved_qwen)), FEWER_FRAMES, 0.25)
    clip = clip_of_frames(frames.clone(), 1.0)
    inputs = processor_inputs(smaller, clip, chat_text(smaller, "What?"))
    assert int(inputs["video_grid_thw"][0, 0]) == 2
    whole = processor_inputs(smaller._processor, clip, chat_text(smaller, "What?"))["pixel_values_videos"]
    patches = whole.reshape(8, -1, whole.shape[1])
    taken = inputs["pixel_values_videos"].reshape(2, -1, whole.shape[1])
    greys = patches.reshape(8, -1, 3, 2, 14 * 14)[:, 0, 0, :, 0].flatten()  # of all 16 frames
    assert torch.isclose(taken.reshape(2, -1, 3, 2, 14 * 14)[:, 0, 0, :, 0].flatten(), greys[[2, 6, 10, 14]]).all()


def test_models_of_fixed_frames(tmp_path: Path) -> None:
    save_square_model(tmp_path / "model", "llava_onevision")
    processor = load_processor(str(tmp_path / "model"))
    with pytest.raises(ScoreError, match="compressor must not be resize for this model"):
        SmallerVideos(processor, RESIZE, 0.5)
    smaller = SmallerVideos(processor, FEWER_FRAMES, 0.25)
    clip, text = clip_of_frames(torch.zeros(8, 40, 40, 3), 1.0), chat_text(processor, "What?")
    assert processor_inputs(smaller, clip, text)["pixel_values_videos"].shape[1] == 2
    assert smaller.shares == [4.0]
