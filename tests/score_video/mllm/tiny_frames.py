"""Tiny models of families whose processors write frames in ways of their own (tiny_grids.py has the others)."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tiny import END, IMAGE, START, VIDEO, Batch, Family, Prompts, seeded
from tiny_configs import (
    AUDIO,
    DEEPSTACK,
    EXPERTS,
    IDS,
    MARKS,
    SQUARE,
    TEXT,
    WINDOWS,
    Grids,
    rotary,
)
from transformers import AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

# --- Molmo2


def molmo(batch: Batch, prompts: Prompts) -> None:
    """Frames of 6 x 6 patches, four of which are a token."""
    frames: list[int] = []
    for shown in filter(None, batch.shown(prompts)):
        batch.frames(shown, IMAGE, 9)
        frames.append(shown)
    batch.pixels["mm_token_type_ids"] = [[int(token in (IMAGE, START, END)) for token in row] for row in batch.ids]
    if frames:
        count = sum(frames)
        batch.pixels["pixel_values_videos"] = torch.randn(count, 36, 48, generator=batch.generator)
        batch.pixels["video_grids"] = torch.tensor([[t, 3, 3] for t in frames])
        patches = torch.arange(36 * count).view(count, 3, 2, 3, 2).transpose(2, 3)
        batch.pixels["video_token_pooling"] = patches.reshape(count * 9, 4)


def molmo2() -> Family:
    config = CONFIG_MAPPING["molmo2"](
        text_config={**TEXT, "additional_vocab_size": 8},
        vision_config={
            **SQUARE,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "image_size": [24, 24],
            "num_position_embeddings": 36,
        },
        adapter_config={
            "vision_feature_layer": [1, 0],
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "intermediate_size": 48,
            "text_hidden_size": 32,
        },
        image_patch_id=IMAGE,
        image_start_token_id=START,
        image_end_token_id=END,
        low_res_image_start_token_id=7,
        frame_start_token_id=START,
        frame_end_token_id=END,
    )
    return Family(seeded(AutoModelForImageTextToText.from_config, config), molmo, mixes=False)


# --- Qwen's thinkers


def thinker(name: str, second: int, text: dict[str, Any], vision: dict[str, Any], audio: dict[str, Any]) -> Any:
    """second: positions in one."""

    def make() -> Family:
        def write(batch: Batch, prompts: Prompts) -> None:
            Grids()(batch, prompts)
            if (grids := batch.pixels.get("video_grid_thw")) is not None:
                batch.pixels["video_second_per_grid"] = torch.full((len(grids),), 2.0 / second)

        ids = {"image_token_id": IMAGE, "video_token_id": VIDEO, "audio_token_id": AUDIO}
        ids |= {"image_token_index": IMAGE, "video_token_index": VIDEO, "audio_token_index": AUDIO}
        config = getattr(transformers, f"{name}ThinkerConfig")(
            text_config={**TEXT, **text},
            vision_config=vision,
            audio_config=audio,
            position_id_per_seconds=second,
            audio_start_token_id=7,
            audio_end_token_id=8,
            **ids,
            **MARKS,
        )
        kind = getattr(transformers, f"{name}ThinkerForConditionalGeneration")
        return Family(seeded(kind, config), write)

    make.__name__ = "qwen2_5_omni_thinker" if name == "Qwen2_5Omni" else "qwen3_omni_moe_thinker"
    return make


EARS = {"num_mel_bins": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "d_model": 32}
EARS |= {"output_dim": 32, "n_window": 50}

# --- frames of equal size, stacked


def video_llava() -> Family:
    config = CONFIG_MAPPING["video_llava"](
        text_config={"model_type": "llama", **TEXT},
        vision_config={"model_type": "clip_vision_model", **SQUARE, "image_size": 12},
        image_token_index=IMAGE,
        video_token_index=VIDEO,
    )

    def write(batch: Batch, prompts: Prompts) -> None:
        stacked(batch, prompts, 9, 1, 12)

    return Family(seeded(AutoModelForImageTextToText.from_config, config), write)


def perception_lm() -> Family:
    config = CONFIG_MAPPING["perception_lm"](
        text_config={"model_type": "llama", **TEXT},
        vision_config={"model_type": "clip_vision_model", **SQUARE, "image_size": 24, "model_args": {"embed_dim": 32}},
        projector_pooling_ratio=2,
        **IDS,
    )

    def write(batch: Batch, prompts: Prompts) -> None:
        stacked(batch, prompts, 9, 0, 24)
        if (pixels := batch.pixels.get("pixel_values")) is not None:
            batch.pixels["pixel_values"] = pixels[:, None]  # in one tile

    return Family(seeded(AutoModelForImageTextToText.from_config, config), write)


def stacked(batch: Batch, prompts: Prompts, frame: int, classes: int, size: int) -> None:
    """classes: tokens in front of each frame that stay."""
    images, frames = 0, set()
    for shown in batch.shown(prompts):
        if not shown:
            batch.ids[-1] += [IMAGE] * frame
            images += 1
            continue
        for _ in range(shown):
            batch.ids[-1] += [VIDEO] * classes
            batch.droppable(VIDEO, frame)
        frames.add(shown)
    if images:
        batch.pixels["pixel_values"] = torch.randn(images, 3, size, size, generator=batch.generator)
    if frames:
        (count,) = frames
        shape = len(batch.places), count, 3, size, size
        batch.pixels["pixel_values_videos"] = torch.randn(shape, generator=batch.generator)


# all experts, or rounding to bfloat16 would choose others
EXPERT_TEXT = {**EXPERTS, "num_experts_per_tok": 4, "decoder_sparse_step": 1}
FULL = [
    molmo2,
    thinker("Qwen2_5Omni", 25, rotary(2, 1, 1), WINDOWS, EARS),
    thinker("Qwen3OmniMoe", 13, {**EXPERT_TEXT, **rotary(2, 1, 1)}, DEEPSTACK, {**EARS, "downsample_hidden_size": 8}),
    video_llava,
    perception_lm,
]
