"""What a processor is told about a video: which frames, from when, in which prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.videos import write_video

from score_video.mllm.conversation import Clip, chat_ids, clip_of_frames, processor_inputs, read_clip
from score_video.video import VideoError


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2 s at 10 fps, 64 x 48."""
    noise = np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", list(noise))


@pytest.mark.parametrize(("max_pixels", "size"), [(64 * 48, (48, 64)), (64 * 48 // 4, (24, 32)), (1, (1, 1))])
def test_frames_are_no_larger_than_asked_for(file: Path, max_pixels: int, size: tuple[int, int]) -> None:
    clip = read_clip(file, 4, max_pixels)
    assert clip.frames.shape == (4, *size, 3) and clip.frames.dtype == torch.uint8
    torch.testing.assert_close(clip.seconds, torch.tensor([0.2, 0.7, 1.2, 1.7], dtype=torch.float64))
    assert clip.duration == pytest.approx(2)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="none"):
        read_clip(tmp_path / "none.mp4", 4, 100)


def test_frames_of_a_pseudo_video() -> None:
    clip = clip_of_frames(torch.full((3, 2, 2, 3), 0.5), 2.0)
    assert clip.frames.unique().tolist() == [128]
    assert clip.seconds.tolist() == [0, 0.5, 1] and clip.duration == 1.5


class Recorder:
    """A processor that says what it was given; its prompts begin with <s>."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        self.tokenizer = _Tokenizer()

    def __call__(self, **given: Any) -> dict[str, Any]:
        self.given = given
        return {"input_ids": torch.tensor([[1]]), "second_per_grid_ts": [0.5]}


class _Tokenizer:
    bos_token = "<s>"

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [1] * add_special_tokens + [1] * text.startswith("<s>") + [7]}


def test_times_to_a_millisecond() -> None:
    """Processors reckon with frame numbers and rates: those given come to the right times, whatever the video's are."""
    seconds = torch.tensor([0.2, 0.7334, 1.9], dtype=torch.float64)
    clip = Clip(torch.randint(256, (3, 4, 6, 3), dtype=torch.uint8), seconds, 2.0)
    processor = Recorder()
    inputs = processor_inputs(processor, clip, "text")
    ((video,),), (metadata,) = processor.given["videos"], processor.given["video_metadata"]
    assert torch.equal(video, clip.frames.permute(0, 3, 1, 2))
    assert [number / metadata["fps"] for number in metadata["frames_indices"]] == [0.2, 0.733, 1.9]
    assert len(metadata["frames_indices"]) / metadata["total_num_frames"] * metadata["fps"] == 1.5  # frames a second
    assert (metadata["height"], metadata["width"], metadata["duration"]) == (4, 6, 2.0)
    assert torch.equal(inputs["second_per_grid_ts"], torch.tensor([0.5]))


@pytest.mark.parametrize("text", ["<s>What?", "What?"])
def test_one_token_begins_a_text(text: str) -> None:
    processor = Recorder()
    assert chat_ids(processor, text).tolist() == [1, 7]
    processor_inputs(processor, clip_of_frames(torch.zeros(1, 2, 2, 3), 2.0), text)
    assert processor.given["add_special_tokens"] == (not text.startswith("<s>"))
