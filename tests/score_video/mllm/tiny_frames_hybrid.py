"""As tiny_frames.py, of families with linear or windowed attention."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from tiny import END, IMAGE, START, VIDEO, Batch, Family, Prompts, kinds, seeded
from tiny_configs import (
    AUDIO,
    LINEAR,
    SQUARE,
    TEXT,
    family,
    layers,
    rotary,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

# --- Gemma 4


def gemma(pooled: int, patch: int) -> Any:
    """pooled: patches in height and in width that are one token; patch: numbers in one."""

    def write(batch: Batch, prompts: Prompts) -> None:
        rows, columns = 2 * pooled, 3 * pooled
        images, frames = 0, []
        for shown in batch.shown(prompts):
            if not shown:
                batch.ids[-1] += [START, *[IMAGE] * 6, END]
                images += 1
                continue
            batch.frames(shown, VIDEO, 6)
            frames.append(shown)
        batch.pixels["mm_token_type_ids"] = kinds(batch.ids)
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
GEMMA_AUDIO = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "output_proj_dims": 32}
GEMMA_AUDIO |= {"subsampling_conv_channels": [128, 4]}


# --- MiniCPM


def minicpm(types: bool, merge: int = 4) -> Any:
    """merge: patches in height and in width that are one token."""

    def write(batch: Batch, prompts: Prompts) -> None:
        sizes: dict[str, list[tuple[int, int]]] = {"image": [], "video": []}
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
        if types:
            batch.pixels["mm_token_type_ids"] = kinds(batch.ids)
        for kind, suffix in (("image", ""), ("video", "_videos")):
            if sizes[kind]:
                patches = sum(h * w for h, w in sizes[kind])
                # all patches side by side
                batch.pixels[f"pixel_values{suffix}"] = torch.randn(1, 3, 4, 4 * patches, generator=batch.generator)
                batch.pixels[f"target_sizes{suffix}"] = torch.tensor(sizes[kind])

    return write


MINICPM_TEXT = {"model_type": "qwen3_5_text", **LINEAR, **layers("linear_attention", "full_attention")}
MINICPM_VISION = {**SQUARE, "image_size": 64, "insert_layer_id": 0, "num_hidden_layers": 2}


# --- Nemotron-H


def nemotron(batch: Batch, prompts: Prompts) -> None:
    tubelets: set[int] = set()
    for shown in filter(None, batch.shown(prompts)):
        batch.frames(shown, IMAGE, 4)
        tubelets.add(shown)
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
PARAKEET = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
PARAKEET |= {"num_mel_bins": 16, "subsampling_conv_channels": 8, "projection_hidden_size": 48, "projection_bias": False}


def nemotron_h_omni() -> Family:
    config = CONFIG_MAPPING["nemotron_h_omni"](
        text_config={"model_type": "nemotron_h", **TEXT, **NEMOTRON_TEXT},
        vision_config=RADIO,
        audio_config=PARAKEET,
        image_token_id=IMAGE,
        audio_token_id=AUDIO,
        projector_hidden_size=48,
        vision_hidden_size=32,
    )
    return Family(seeded(transformers.NemotronH_Omni_Reasoning_V3, config), nemotron, mixes=False)


HYBRID = [
    family(
        "gemma4",
        gemma(2, 48),
        {**GEMMA_TEXT, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 100},
        GEMMA_VISION,
        audio_config=GEMMA_AUDIO,
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
        audio_config={"audio_embed_dim": 24},
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
