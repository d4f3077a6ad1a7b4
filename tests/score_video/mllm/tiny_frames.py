"""Tiny models of families whose processors write frames in ways of their own (tiny_grids.py has the others)."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tiny import END, IMAGE, START, VIDEO, Batch, Family, Prompts, seeded
from tiny_grids import (
    AUDIO,
    DEEPSTACK,
    EXPERTS,
    IDS,
    LINEAR,
    MARKS,
    SQUARE,
    TEXT,
    WINDOWS,
    Grids,
    family,
    layers,
    rotary,
)
from transformers import AutoModelForImageTextToText
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

# --- Gemma 4


def gemma(pooled: int, patch: int) -> Any:
    """pooled: patches in height and in width that are one token; patch: numbers in one."""

    def write(batch: Batch, prompts: Prompts) -> None:
        rows, columns = 2 * pooled, 3 * pooled
        images, frames = 0, []
        types: list[list[int]] = []
        for prompt in prompts:
            batch.ids.append([])
            row = batch.ids[-1]
            for part in prompt:
                if isinstance(part, int):
                    batch.text(part)
                elif part == "image":
                    row += [START, *[IMAGE] * 6, END]
                    images += 1
                else:
                    batch.places.append([])
                    for _ in range(int(part[1])):
                        batch.text(2)
                        row.append(START)
                        batch.droppable(VIDEO, 6)
                        row.append(END)
                    frames.append(int(part[1]))
            types.append([{IMAGE: 1, VIDEO: 2}.get(token, 0) for token in row])
        batch.pixels["mm_token_type_ids"] = types
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        places = torch.stack([x.flatten(), y.flatten()], 1)
        for kind, count in (("image", images), ("video", sum(frames))):
            if count:
                pixels = torch.rand(count, rows * columns, patch, generator=batch.generator)
                batch.pixels["pixel_values" + ("_videos" if kind == "video" else "")] = pixels
                batch.pixels[f"{kind}_position_ids"] = places.repeat(count, 1, 1)
        if frames:
            batch.pixels["num_frames_per_video"] = torch.tensor(frames)

    return write


GEMMA_ROPE = {
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 10000.0},
    }
}
GEMMA_TEXT = {**layers("sliding_attention", "full_attention", window=8), **GEMMA_ROPE, "global_head_dim": 8}
GEMMA_VISION = {**SQUARE, "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 16, "pooling_kernel_size": 2}
GEMMA_VISION |= {"position_embedding_size": 64, "max_position_embeddings": 64, "default_output_length": 6}


# --- MiniCPM


def minicpm(types: bool, merge: int = 4) -> Any:
    """merge: patches in height and in width that are one token."""

    def write(batch: Batch, prompts: Prompts) -> None:
        sizes: dict[str, list[tuple[int, int]]] = {"image": [], "video": []}
        rows: list[list[int]] = []
        for prompt in prompts:
            batch.ids.append([])
            batch.pictures.append([])
            row = batch.ids[-1]
            for part in prompt:
                if isinstance(part, int):
                    batch.text(part)
                elif part == "image":
                    row += [START, *[IMAGE] * (64 // merge**2), END]
                    sizes["image"].append((8, 8))
                else:
                    batch.places.append([])
                    for _ in range(int(part[1])):
                        row.append(START)
                        batch.droppable(VIDEO, 96 // merge**2)
                        row.append(END)
                    sizes["video"] += [(8, 12)] * int(part[1])
                    batch.pictures[-1].append(("video", int(part[1])))
            rows.append([{IMAGE: 1, VIDEO: 2}.get(token, 0) for token in row])
        if types:
            batch.pixels["mm_token_type_ids"] = rows
        for kind, suffix in (("image", ""), ("video", "_videos")):
            if sizes[kind]:
                patches = sum(h * w for h, w in sizes[kind])
                # all patches side by side
                batch.pixels[f"pixel_values{suffix}"] = torch.randn(1, 3, 4, 4 * patches, generator=batch.generator)
                batch.pixels[f"target_sizes{suffix}"] = torch.tensor(sizes[kind])

    return write


MINICPM_TEXT = {"model_type": "qwen3_5_text", **LINEAR, **layers("linear_attention", "full_attention")}
MINICPM_VISION = {**SQUARE, "image_size": 64, "insert_layer_id": 0, "num_hidden_layers": 2}


# --- Molmo2


def molmo(batch: Batch, prompts: Prompts) -> None:
    """Frames of 6 x 6 patches, four of which are a token."""
    frames: list[int] = []
    types: list[list[int]] = []
    for prompt in prompts:
        batch.ids.append([])
        row = batch.ids[-1]
        for part in prompt:
            if isinstance(part, int):
                batch.text(part)
            elif part != "image":
                batch.places.append([])
                for _ in range(int(part[1])):
                    batch.text(2)
                    row.append(START)
                    batch.droppable(IMAGE, 9)
                    row.append(END)
                frames.append(int(part[1]))
        types.append([int(token in (IMAGE, START, END)) for token in row])
    batch.pixels["mm_token_type_ids"] = types
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


# --- Nemotron-H


def nemotron(batch: Batch, prompts: Prompts) -> None:
    tubelets: set[int] = set()
    for prompt in prompts:
        batch.ids.append([])
        for part in prompt:
            if isinstance(part, int):
                batch.text(part)
            elif part != "image":
                batch.places.append([])
                for _ in range(int(part[1])):
                    batch.text(2)
                    batch.ids[-1].append(START)
                    batch.droppable(IMAGE, 4)
                    batch.ids[-1].append(END)
                tubelets.add(int(part[1]))
    if tubelets:
        (count,) = tubelets  # the processor stacks videos
        batch.pixels["pixel_values_videos"] = torch.randn(
            len(batch.places), count, 6, 16, 16, generator=batch.generator
        )


NEMOTRON_TEXT = {
    "layers_block_type": ["linear_attention", "full_attention", "mlp"],
    "num_hidden_layers": 3,
    "ssm_state_size": 8,
    "mamba_num_heads": 4,
    "mamba_head_dim": 8,
    "n_groups": 2,
    "chunk_size": 8,
    "use_mamba_kernels": False,
}
RADIO = {**SQUARE, "image_size": 32, "max_img_size": 32, "num_cls_tokens": 1, "num_registers": 1, "mlp_ratio": 2.0}
RADIO |= {"summary_idxs": [0], "patch_dim": 48, "video_patch_dim": 96, "video_temporal_patch_size": 2}


def nemotron_h_omni() -> Family:
    config = CONFIG_MAPPING["nemotron_h_omni"](
        text_config={"model_type": "nemotron_h", **TEXT, **NEMOTRON_TEXT},
        vision_config=RADIO,
        image_token_id=IMAGE,
        audio_token_id=AUDIO,
        projector_hidden_size=48,
        vision_hidden_size=32,
    )
    return Family(seeded(transformers.NemotronH_Omni_Reasoning_V3, config), nemotron, mixes=False)


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
    for prompt in prompts:
        batch.ids.append([])
        for part in prompt:
            if isinstance(part, int):
                batch.text(part)
            elif part == "image":
                batch.ids[-1] += [IMAGE] * frame
                images += 1
            else:
                batch.places.append([])
                for _ in range(int(part[1])):
                    batch.ids[-1] += [VIDEO] * classes
                    batch.droppable(VIDEO, frame)
                frames.add(int(part[1]))
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
HYBRID = [
    family(
        "gemma4",
        gemma(2, 48),
        {**GEMMA_TEXT, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 100},
        GEMMA_VISION,
        audio_token_id=AUDIO,
    ),
    family(
        "gemma4_unified",
        gemma(1, 48),
        GEMMA_TEXT,
        {
            **GEMMA_VISION,
            "pooling_kernel_size": 1,
            "mm_embed_dim": 32,
            "model_patch_size": 4,
            "mm_posemb_size": 16,
            "output_proj_dims": 32,
        },
        audio_token_id=AUDIO,
    ),
    family(
        "minicpm_ocr",
        minicpm(False, merge=2),
        {**MINICPM_TEXT, **rotary(2, 1, 1, partial_rotary_factor=1.0)},
        MINICPM_VISION,
        insert_layer_id=0,
        told=True,
    ),
    family(
        "minicpmv4_6",
        minicpm(False),
        {**MINICPM_TEXT, **rotary(2, 1, 1, partial_rotary_factor=1.0)},
        MINICPM_VISION,
        insert_layer_id=0,
        told=True,
    ),
    family(
        "minicpmv4_7",
        minicpm(True),
        {**MINICPM_TEXT, **rotary(2, 1, 1, partial_rotary_factor=1.0)},
        MINICPM_VISION,
        insert_layer_id=0,
        told=True,
    ),
    nemotron_h_omni,
]
