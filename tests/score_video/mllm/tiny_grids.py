"""Tiny models of the families whose processors give grids of patches, and prompts as they write them.

``FULL``: attention of full layers only. ``HYBRID``: layers of linear, windowed or indexed attention too.
"""

from __future__ import annotations

import torch
from tiny import END, IMAGE, START, VIDEO, Batch, Prompts
from tiny_configs import (
    AUDIO,
    BEGIN,
    DEEPSTACK,
    EXPERTS,
    FINISH,
    GLM_MARKS,
    INDEX,
    LATENT,
    LINEAR,
    MARKS,
    ROUTED,
    SQUARE,
    TABLE,
    VISION,
    WINDOWS,
    Grids,
    family,
    layers,
    rotary,
)

RUNS = Grids()
TIMES = Grids(timestamps=True)
TYPED_RUNS = Grids(types=True)
TYPED_TIMES = Grids(timestamps=True, types=True)
GLM = Grids(timestamps=True, types=True, video=IMAGE)
AUDIO_CONFIG = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2}
AUDIO_CONFIG |= {"num_key_value_heads": 2, "head_dim": 16, "adapter_input_size": 32, "adapter_out_dim": 32}
AUDIO_CONFIG |= {"downsample_hidden_size": 8, "feature_size": 16, "conv_output_size": 16}
SPARK_AUDIO = {"patch_sizes": [4, 3, 2, 2], "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "out_hidden_size": 32}


def ernie(batch: Batch, prompts: Prompts) -> None:
    """With the token types of its experts, which count the marks around pictures too."""
    Grids(types=True, merged=2, pixels=(48,))(batch, prompts)
    rows = []
    for ids, kinds in zip(batch.ids, batch.pixels["mm_token_type_ids"], strict=True):
        rows.append([kind or (1 if token in (START, END) else 0) for token, kind in zip(ids, kinds, strict=True)])
    batch.pixels["moe_mm_token_type_ids"] = rows


def video_llama(batch: Batch, prompts: Prompts) -> None:
    Grids(pixels=(48,))(batch, prompts)
    for kind in ("image", "video"):
        if (grids := batch.pixels.get(f"{kind}_grid_thw")) is not None:
            batch.pixels[f"{kind}_merge_sizes"] = torch.full((len(grids),), 2)


FULL = [
    family(
        "cosmos3_edge",
        Grids(timestamps=True, types=True, pixels=(48,)),
        rotary(2, 1, 1),
        {**SQUARE, "num_patches": 64},
        projector_hidden_size=48,
        **MARKS,
    ),
    family("cosmos3_omni", TYPED_TIMES, rotary(2, 1, 1), DEEPSTACK, **MARKS),
    family(
        "ernie4_5_vl_moe",
        ernie,
        {
            "moe_intermediate_size": [16, 16],
            "moe_k": 2,
            "moe_num_experts": 4,
            "moe_num_shared_experts": 1,
            "mlp_layer_types": ["dense", "sparse"],
            **rotary(1, 1, 2),
        },
        VISION,
        image_start_token_id=START,
        image_end_token_id=END,
        video_start_token_id=START,
        video_end_token_id=END,
    ),
    family("glm_ocr", GLM, rotary(2, 1, 1), {**VISION, "image_size": 32}, mixes=False),
    family("glmga", GLM, rotary(2, 1, 1), {**VISION, "image_size": 32}, mixes=False),
    family(
        "kimi_k25",
        Grids(timestamps=True, chunk=4, pixels=(3, 4, 4)),
        {**LATENT, **ROUTED, "first_k_dense_replace": 1},
        TABLE,
        projection_hidden_size=32,
        told=True,
        **MARKS,
    ),
    family("video_llama_3", video_llama, {"model_type": "qwen2"}, SQUARE),
]

HYBRID = [
    family(
        "cohere_compass",
        TYPED_TIMES,
        {
            **layers("full_attention", "sliding_attention", window=8),
            "rope_parameters": {
                name: rotary(2, 1, 1)["rope_parameters"] for name in ("full_attention", "sliding_attention")
            },
        },
        DEEPSTACK,
        **MARKS,
    ),
    family(
        "dots3_note",
        Grids(pixels=(48,)),
        {
            **LATENT,
            **ROUTED,
            **INDEX,
            **layers("indexed_attention", "sliding_attention", window=8),
            "index_head_dim": 16,
            "shared_experts_intermediate_size": 16,
            **{f"swa_{name}": size for name, size in LATENT.items()},
            "swa_num_attention_heads": 4,
            "swa_head_dim": 16,
        },
        {
            **SQUARE,
            "moe_intermediate_size": 16,
            "mlp_layer_types": ["dense", "sparse"],
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "adapter_in_dim": 32,
            "adapter_out_dim": 32,
        },
        audio_config=AUDIO_CONFIG,
        audio_token_id=AUDIO,
    ),
    family(
        "exaone4_5",
        RUNS,
        {"model_type": "exaone4", **layers("sliding_attention", "full_attention", window=8)},
        {**WINDOWS, "num_key_value_heads": 1},
    ),
    family(
        "glm5_next",
        Grids(timestamps=True, types=True, video=IMAGE, around=(BEGIN, FINISH)),
        {
            **LATENT,
            **ROUTED,
            **INDEX,
            **layers("linear_attention", "indexed_attention"),
            "qk_rope_head_dim": 0,
            "indexer_types": ["full", "full"],
            "index_topk": 32,
            "index_head_dim": 8,
            "linear_head_dim": 8,
            "linear_num_heads": 4,
            "hc_mult": 2,
            "index_kpool": 4,
        },
        {**VISION, "projection_intermediate_size": 48},
        video_start_token_id=BEGIN,
        video_end_token_id=FINISH,
        **GLM_MARKS,
    ),
    family(
        "hy_v4_vl",
        Grids(types=True, newline=1, pixels=(48,)),
        {
            **LATENT,
            **ROUTED,
            **INDEX,
            **layers("indexed_attention", "indexed_attention"),
            "index_head_dim": 8,
            "indexer_types": ["full", "shared"],
            "hc_mult": 2,
            **rotary(2, 1, 1),
        },
        {**SQUARE, "num_key_value_heads": 2, "out_hidden_size": 32, "max_image_size": 32},
    ),
    family("hyperclovax_vision_v2", RUNS, {}, WINDOWS),
    family(
        "lfm3_vl",
        TIMES,
        layers("conv", "sliding_attention", "full_attention", window=8),
        {**SQUARE, "num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]},
        projector_hidden_size=48,
        **MARKS,
    ),
    family(
        "minimax_m3_vl",
        TIMES,
        {
            **layers("full_attention", "minimax_m3_sparse"),
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "dense_intermediate_size": 48,
            "shared_intermediate_size": 16,
            "rotary_dim": 8,
            "mlp_layer_types": ["dense", "sparse"],
            "index_n_heads": 2,
            "index_head_dim": 8,
            "index_block_size": 4,
            "index_topk_blocks": 2,
        },
        {**SQUARE, "image_size": 32},
        told=True,
        projector_hidden_size=48,
        image_token_index=IMAGE,
        video_token_index=VIDEO,
    ),
    family(
        "muse_glimmer",
        TIMES,
        {
            **layers("sliding_attention", "full_attention", window=8),
            "layer_rope_theta": [1e4, 0.0],
            "qk_scale_factor": 1.0,
        },
        {**TABLE, "layer_types": ["full_attention", "window_attention"]},
        out_hidden_size=128,
        projector_hidden_size=48,
    ),
    family(
        "muse_spark",
        TIMES,
        {
            **layers("sliding_attention", "full_attention", window=8),
            "layer_rope_theta": [1e4, 0.0],
            "qk_scale_factor": 1.0,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "moe_hidden_size": 16,
            "mlp_layer_types": ["dense", "sparse"],
        },
        {**TABLE, "layer_types": ["full_attention", "window_attention"]},
        out_hidden_size=128,
        projector_hidden_size=48,
        audio_config=SPARK_AUDIO,
        audio_token_id=AUDIO,
    ),
    family(
        "qwen3_5",
        TYPED_TIMES,
        {**LINEAR, **layers("linear_attention", "full_attention"), **rotary(2, 1, 1, partial_rotary_factor=1.0)},
        VISION,
        **MARKS,
    ),
    family(
        "qwen3_5_moe",
        TYPED_TIMES,
        {
            **LINEAR,
            **EXPERTS,
            "shared_expert_intermediate_size": 16,
            **layers("linear_attention", "full_attention"),
            **rotary(2, 1, 1, partial_rotary_factor=1.0),
        },
        VISION,
        **MARKS,
    ),
    family(
        "qwen4_exp",
        TYPED_TIMES,
        {
            **LINEAR,
            **EXPERTS,
            "shared_expert_intermediate_size": 16,
            **layers("linear_attention", "indexed_attention"),
            "hc_count": 2,
            "hc_lowrank": 8,
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 8,
            "indexer_budget": 8,
            "indexer_compress_ratio": 2,
            **rotary(2, 1, 1, partial_rotary_factor=1.0),
        },
        VISION,
        **MARKS,
    ),
]
