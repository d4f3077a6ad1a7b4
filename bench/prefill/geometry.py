"""Which models are measured: their shapes, written down from the configs that they are published with.

Speed depends on shapes alone, so models are made of these with random weights. Left out is what has no influence on
it: ids of special tokens, the tied or untied embedding, lengths seen in training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import LlavaOnevisionConfig, PretrainedConfig, Qwen2_5_VLConfig, Qwen3VLConfig

TEXT_BEFORE, TEXT_AFTER = 32, 32
"""Tokens of text around the video in every prompt."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """A model's shapes.

    Attributes:
        name: as in tables.
        source: where the shapes were read.
        family: the config's ``model_type``.
        text, vision: arguments of the configs of the language model and of the vision tower.
        lengths: about how many visual tokens -> (frames, rows, columns) of what the language model gets.
    """

    name: str
    source: str
    family: str
    text: dict[str, Any]
    vision: dict[str, Any]
    lengths: dict[int, tuple[int, int, int]]

    def config(self) -> PretrainedConfig:
        """The config that transformers makes a model of."""
        build: Any = {
            "qwen2_5_vl": Qwen2_5_VLConfig,
            "qwen3_vl": Qwen3VLConfig,
            "llava_onevision": LlavaOnevisionConfig,
        }[self.family]
        config: PretrainedConfig = build(
            text_config=dict(self.text), vision_config=dict(self.vision), **_IDS[self.family]
        )
        return config

    @property
    def width(self) -> int:
        """D of the visual tokens."""
        width: int = self.text["hidden_size"]
        return width

    @property
    def linear_parameters(self) -> int:
        """Weights of the decoder layers' matrices, which every token is multiplied with."""
        text = self.text
        attention = (
            text["hidden_size"] * self.head_dim * 2 * (text["num_attention_heads"] + text["num_key_value_heads"])
        )
        feed_forward = 3 * text["hidden_size"] * text["intermediate_size"]
        total: int = text["num_hidden_layers"] * (attention + feed_forward)
        return total

    @property
    def head_dim(self) -> int:
        """Width of an attention head."""
        default = self.text["hidden_size"] // self.text["num_attention_heads"]
        head_dim: int = self.text.get("head_dim", default)
        return head_dim


def prefill_flops(geometry: Geometry, prompt: int) -> float:
    """Floating-point operations from embeddings to the logits of the first new token, of one prompt.

    Every matrix once for every token, attention's two products over the causal half, and the output layer for the last
    token alone. Norms, rotations and the softmax are left out: they are no matrix products, and far fewer.

    Args:
        prompt: S, its tokens.
    """
    text = geometry.text
    attention_width = text["num_attention_heads"] * geometry.head_dim
    linear: float = 2 * geometry.linear_parameters * prompt
    attention: float = 4 * prompt**2 * attention_width / 2 * text["num_hidden_layers"]
    output: float = 2 * text["hidden_size"] * text["vocab_size"]
    return linear + attention + output


# Ids as the configs have them, but small enough for the vocabulary of any geometry here.
_QWEN_IDS = {"image_token_id": 3, "video_token_id": 4, "vision_start_token_id": 5, "vision_end_token_id": 6}
_IDS = {
    "qwen2_5_vl": _QWEN_IDS,
    "qwen3_vl": _QWEN_IDS,
    "llava_onevision": {"image_token_index": 3, "video_token_index": 4},
}

_SQUARE = {8_192: (32, 16, 16), 16_384: (64, 16, 16), 40_000: (64, 25, 25)}
_LONG = {65_536: (64, 32, 32)}
# LLaVA-OneVision has 14 x 14 tokens for a frame of any size
_LLAVA = {8_192: (42, 14, 14), 16_384: (84, 14, 14), 40_000: (204, 14, 14)}


def _text(hidden: int, intermediate: int, layers: int, heads: int, kv_heads: int, vocabulary: int) -> dict[str, Any]:
    return {
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": 131_072,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def _qwen2_5(section: list[int], *shape: int) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section}
    return {**_text(*shape), "rope_parameters": rope}


def _qwen3(section: list[int], head_dim: int, *shape: int) -> dict[str, Any]:
    rope = {"rope_type": "default", "rope_theta": 5e6, "mrope_section": section, "mrope_interleaved": True}
    return {**_text(*shape), "head_dim": head_dim, "rope_parameters": rope}


def _llava(*shape: int) -> dict[str, Any]:
    return {"model_type": "qwen2", **_text(*shape)}


_QWEN2_5_TOWER = {
    "depth": 32,
    "hidden_size": 1280,
    "num_heads": 16,
    "intermediate_size": 3420,
    "patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_QWEN3_TOWER = {
    "depth": 27,
    "hidden_size": 1152,
    "num_heads": 16,
    "intermediate_size": 4304,
    "patch_size": 16,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}
_SIGLIP = {
    "model_type": "siglip_vision_model",
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 26,
    "num_attention_heads": 16,
    "patch_size": 14,
    "image_size": 384,
    "vision_use_head": False,
}

REAL: tuple[Geometry, ...] = (
    Geometry(
        "Qwen2.5-VL 7B", "config.json of Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl",
        _qwen2_5([16, 24, 24], 3584, 18_944, 28, 28, 4, 152_064), {**_QWEN2_5_TOWER, "out_hidden_size": 3584},
        {**_SQUARE, **_LONG},
    ),
    Geometry(
        "Qwen3-VL 8B", "config.json of Qwen/Qwen3-VL-8B-Instruct", "qwen3_vl",
        _qwen3([24, 20, 20], 128, 4096, 12_288, 36, 32, 8, 151_936), {**_QWEN3_TOWER, "out_hidden_size": 4096}, _SQUARE,
    ),
    Geometry(
        "LLaVA-OneVision 7B", "config.json of llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava_onevision",
        _llava(3584, 18_944, 28, 28, 4, 152_128), _SIGLIP, _LLAVA,
    ),
)  # fmt: skip
"""For GPUs, together less than ten minutes; the one that the targets are for comes first."""

_SMALL = {2_048: (32, 8, 8), 4_096: (64, 8, 8), 8_192: (32, 16, 16)}
_SMALL_LLAVA = {2_048: (32, 8, 8), 4_096: (64, 8, 8), 8_192: (128, 8, 8)}
_TINY = (512, 1536, 4, 4, 2, 2048)

REDUCED: tuple[Geometry, ...] = (
    Geometry(
        "Qwen2.5-VL reduced", "ours", "qwen2_5_vl", _qwen2_5([16, 24, 24], *_TINY),
        {"depth": 2, "hidden_size": 128, "num_heads": 2, "intermediate_size": 256, "patch_size": 14, "window_size": 112,
         "fullatt_block_indexes": [1], "out_hidden_size": 512}, _SMALL,
    ),
    Geometry(
        "LLaVA-OneVision reduced", "ours", "llava_onevision", _llava(*_TINY),
        {"model_type": "siglip_vision_model", "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2,
         "num_attention_heads": 2, "patch_size": 14, "image_size": 224, "vision_use_head": False}, _SMALL_LLAVA,
    ),
)  # fmt: skip
"""For CPUs: two of the families, so narrow and shallow that the program takes minutes."""

QUARTER = Geometry(
    "Qwen2.5-VL, a quarter of 7B", "ours: widths, layers and heads of 7B through four", "qwen2_5_vl",
    _qwen2_5([16, 24, 24], 896, 4736, 7, 7, 1, 2048),
    {**_QWEN2_5_TOWER, "depth": 8, "hidden_size": 320, "num_heads": 4, "intermediate_size": 855,
     "fullatt_block_indexes": [1, 3, 5, 7], "out_hidden_size": 896}, {},
)  # fmt: skip
"""Of a CPU's size, with tower and language model in the proportion of the real one: for bench.first_token."""

QUICK: tuple[Geometry, ...] = (
    Geometry(
        "Qwen2.5-VL tiny", "ours", "qwen2_5_vl", _qwen2_5([2, 1, 1], 32, 48, 2, 4, 2, 100),
        {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "patch_size": 4, "window_size": 16,
         "fullatt_block_indexes": [1], "out_hidden_size": 32}, {128: (32, 2, 2)},
    ),
    Geometry(
        "Qwen3-VL tiny", "ours", "qwen3_vl", _qwen3([2, 1, 1], 8, 32, 48, 3, 4, 2, 100),
        {"depth": 2, "hidden_size": 32, "num_heads": 2, "intermediate_size": 48, "patch_size": 4,
         "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1], "out_hidden_size": 32}, {128: (32, 2, 2)},
    ),
    Geometry(
        "LLaVA-OneVision tiny", "ours", "llava_onevision", _llava(32, 48, 2, 4, 2, 100),
        {"model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 2, "patch_size": 4, "image_size": 12, "vision_use_head": False}, {128: (32, 2, 2)},
    ),
)  # fmt: skip
"""For tests."""

GEOMETRIES = {geometry.name: geometry for geometry in (*REAL, *REDUCED, QUARTER, *QUICK)}
"""All of them by name."""
