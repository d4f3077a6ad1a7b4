"""A question about a video as a model's processor puts it to its model; the frames are read by us, not by transformers."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers.video_utils import VideoMetadata

UNKNOWN_RATE = 1000.0
"""Frames a second by which frames of a video without a rate are numbered: so that their times are good to 1 ms."""


def question_prompt(processor: Any, question: str) -> str:
    """The prompt: a video, then the question, in the processor's chat template, up to where the answer begins.

    Raises ValueError where the question is empty, or the processor has no chat template.
    """
    if not question.strip():
        raise ValueError("question must not be empty")
    if not getattr(processor, "chat_template", None):
        raise ValueError(f"processor must have a chat template, {type(processor).__name__} of this model has none")
    content = [{"type": "video"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    prompt: str = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return prompt


def frame_metadata(timestamps: npt.NDArray[np.float64], duration: float, fps: float | None) -> VideoMetadata:
    """What processors are told about sampled frames, so that models which see times see the right ones.

    Args:
        timestamps: float64 [T], seconds since the first frame, ascending.
        duration: of the whole video, in seconds.
        fps: of the whole video; None: not known. Times are rounded to whole frames of it.
    """
    rate = fps or UNKNOWN_RATE
    numbers = [round(float(time) * rate) for time in timestamps]
    total = max(round(duration * rate), numbers[-1] + 1)
    return VideoMetadata(total_num_frames=total, fps=rate, duration=duration, frames_indices=numbers)


def video_inputs(processor: Any, frames: npt.NDArray[np.uint8], metadata: VideoMetadata, text: str) -> dict[str, Any]:
    """The processor's output for one prompt with one video, all of whose frames are taken.

    Args:
        processor: as transformers loads it for a model.
        frames: uint8 [T, H, W, 3], RGB; of any size, which the processor changes to what its model takes.
        metadata: as :func:`frame_metadata` makes it. It is not changed.
        text: the prompt, with the template's placeholder for the video in it.
    """
    own = VideoMetadata(**metadata)  # Qwen3-VL's processor appends to the list of an odd number of frames
    own.frames_indices = list(metadata.frames_indices or [])
    output = processor(
        text=[text],
        videos=[torch.from_numpy(frames).permute(0, 3, 1, 2)],
        video_metadata=[own],
        do_sample_frames=False,
        return_tensors="pt",
    )
    return dict(output)
