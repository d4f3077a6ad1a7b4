"""Tiny models with random weights, one of each supported family, and inputs for them as their processors make them.

To add a family: a function that returns a :class:`Family`, and its name in :data:`FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# A prompt is a list of parts: a text of so many tokens; an image; a video of so many frames
Part = int | str | tuple[str, int]
TEXT_IDS = range(20, 90)
VOCABULARY = 100


@dataclass(frozen=True)
class Family:
    """A tiny model and how to write prompts for it.

    Attributes:
        model: in eval mode, float32.
        inputs: prompts -> inputs, left-padded. A prompt is a sequence of parts: an int (so many text tokens), "image",
            or ("video", frames).
    """

    model: Any
    inputs: Callable[[Sequence[Sequence[Part]]], dict[str, Tensor]]


def text_ids(count: int, generator: torch.Generator) -> list[int]:
    return torch.randint(TEXT_IDS.start, TEXT_IDS.stop, (count,), generator=generator).tolist()


def left_padded(rows: Sequence[Sequence[int]], fill: int) -> Tensor:
    width = max(len(row) for row in rows)
    return torch.tensor([[fill] * (width - len(row)) + list(row) for row in rows])


_TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
_QWEN_IDS = {"image_token_id": 3, "video_token_id": 4, "vision_start_token_id": 5, "vision_end_token_id": 6}
# rows and columns of the patch grid of an image and of a video's frame, before patches are merged two by two
_IMAGE, _FRAME = (4, 8), (4, 6)


def _qwen_inputs(prompts: Sequence[Sequence[Part]], timestamps: bool, patch_values: int) -> dict[str, Tensor]:
    """timestamps: as Qwen3-VL, whose frames stand between vision_start and vision_end, each after a time."""
    generator = torch.Generator().manual_seed(len(prompts) + sum(len(prompt) for prompt in prompts))
    ids: list[list[int]] = []
    types: list[list[int]] = []
    images: list[tuple[int, int, int]] = []
    videos: list[tuple[int, int, int]] = []
    start, end = _QWEN_IDS["vision_start_token_id"], _QWEN_IDS["vision_end_token_id"]
    for prompt in prompts:
        row: list[int] = []
        for part in prompt:
            if isinstance(part, int):
                row += text_ids(part, generator)
            elif part == "image":
                row += [start, *[_QWEN_IDS["image_token_id"]] * (_IMAGE[0] * _IMAGE[1] // 4), end]
                images.append((1, *_IMAGE))
            else:
                frames = int(part[1])
                frame = [_QWEN_IDS["video_token_id"]] * (_FRAME[0] * _FRAME[1] // 4)
                if timestamps:
                    for _ in range(frames):
                        row += [*text_ids(3, generator), start, *frame, end]
                else:
                    row += [start, *frame * frames, end]
                videos.append((frames, *_FRAME))
        ids.append(row)
        types.append([{3: 1, 4: 2}.get(token, 0) for token in row])
    inputs = {
        "input_ids": left_padded(ids, 0),
        "attention_mask": left_padded([[1] * len(row) for row in ids], 0),
        "mm_token_type_ids": left_padded(types, 0),
    }
    for name, pixels, grids in (("image", "pixel_values", images), ("video", "pixel_values_videos", videos)):
        if grids:
            patches = sum(t * h * w for t, h, w in grids)
            inputs[pixels] = torch.randn(patches, patch_values, generator=generator)
            inputs[f"{name}_grid_thw"] = torch.tensor(grids)
    return inputs


def qwen2_5_vl(**changes: Any) -> Family:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "out_hidden_size": 32}
    config = Qwen2_5_VLConfig(
        text_config={
            **_TEXT,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 1, 1]},
        },
        vision_config={**vision, "patch_size": 4, "window_size": 16, "fullatt_block_indexes": [1]},
        **_QWEN_IDS,
        **changes,
    )
    return _seeded(Qwen2_5_VLForConditionalGeneration, config, lambda p: _qwen_inputs(p, False, 3 * 2 * 16))


def _seeded(kind: Any, config: Any, inputs: Callable[[Sequence[Sequence[Part]]], dict[str, Tensor]]) -> Family:
    torch.manual_seed(0)
    model = kind(config).eval()
    for parameter in model.parameters():  # the usual initialisation is too faint for differences to be seen
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.2)
    model.generation_config.eos_token_id = None  # every answer has as many tokens as are asked for
    return Family(model, inputs)


FAMILIES = {"qwen2_5_vl": qwen2_5_vl}
