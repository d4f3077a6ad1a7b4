"""Videos, images and prompts that the engine is asked about; the engine's process and the tests make the same ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

QUESTION = "What happens?"
VIDEO = "<|vision_start|><|video_pad|><|vision_end|>"
IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"
AT_ONCE = 16

Frames = npt.NDArray[np.uint8]


def moving_square(seed: int, frames: int = 8, height: int = 84, width: int = 140) -> Frames:
    """uint8 [frames, height, width, 3]: a textured background that stays, a bright square that does not."""
    random = np.random.default_rng(seed)
    video = np.repeat(random.integers(0, 160, (1, height, width, 3), dtype=np.uint8), frames, axis=0)
    x, y = random.integers(0, width - 30), random.integers(0, height - 30)
    for number in range(frames):
        left = int(x + 9 * number) % (width - 30)
        video[number, y : y + 30, left : left + 30] = random.integers(200, 256, 3, dtype=np.uint8)
    return video


def with_metadata(frames: Frames) -> tuple[Frames, dict[str, Any]]:
    """A video as vLLM takes it: two frames a second, already sampled."""
    count = len(frames)
    indices = list(range(count))
    metadata = {"fps": 2.0, "frames_indices": indices, "total_num_frames": count, "duration": count / 2}
    return frames, {**metadata, "do_sample_frames": False}


def contents() -> dict[str, tuple[str, list[Frames], list[Frames]]]:
    """Name of a request -> its prompt, its videos, its images."""
    first, second = moving_square(1), moving_square(2, frames=12, height=112, width=84)
    picture = moving_square(3, frames=1)[0]
    requests = {
        "video": (VIDEO + QUESTION, [first], []),
        "image and video": (IMAGE + "Is it in " + VIDEO + QUESTION, [first], [picture]),
        "two videos": (VIDEO + "or" + VIDEO + QUESTION, [first, second], []),
        "text and video": ("Describe the picture. The quick brown fox jumps. " + VIDEO + QUESTION, [first], []),
        "two videos again": (VIDEO + "or" + VIDEO + QUESTION, [first, second], []),
        "text": (QUESTION, [], []),
        "image": (IMAGE + QUESTION, [], [picture]),
    }
    for number in range(AT_ONCE):
        requests[f"at once {number}"] = (
            VIDEO + QUESTION,
            [moving_square(100 + number, frames=4 + 2 * (number % 4))],
            [],
        )
    return requests


def prompt(name: str) -> dict[str, Any]:
    """A request as ``LLM.generate`` takes it."""
    text, videos, images = contents()[name]
    data = {"video": [with_metadata(video) for video in videos], "image": images}
    return {"prompt": text, "multi_modal_data": {kind: items for kind, items in data.items() if items}}
