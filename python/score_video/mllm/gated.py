"""Which vision towers can be run on a part of a video, and what such a run gives: features of all tokens, filled in.

docs/before_the_tower.md has the list, made from these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, searchsorted

from score_video.before_tower import Gate, Seen, fill_sources, filled
from score_video.errors import ScoreError
from score_video.mllm.partial_tower import ErnieTower, GlmTower, HyperClovaTower, TokenTower, VideoLlama3Tower

TOKENS: dict[str, type[TokenTower]] = {
    **dict.fromkeys(
        (
            "cohere_compass",
            "cosmos3_omni",
            "exaone4_5",
            "qwen2_5_omni_thinker",
            "qwen2_5_vl",
            "qwen2_vl",
            "qwen3_5",
            "qwen3_5_moe",
            "qwen3_omni_moe_thinker",
            "qwen3_vl",
            "qwen3_vl_moe",
            "qwen4_exp",
        ),
        TokenTower,
    ),
    **dict.fromkeys(("glm46v", "glm4v", "glm4v_moe", "glm5_next", "glm_ocr", "glmga"), GlmTower),
    "ernie4_5_vl_moe": ErnieTower,
    "hyperclovax_vision_v2": HyperClovaTower,
    "video_llama_3": VideoLlama3Tower,
}
"""model_type -> how its tower is run on some of a video's tokens."""

FRAMES = ("internvl", "llava_next_video", "llava_onevision", "perception_lm", "smolvlm")
"""model_type of those whose dense towers are run on some of a video's frames, each whole."""

REFUSED = {
    "kimi_k25": "its tower attends over all frames of a chunk, and pools them",
    "minimax_m3_vl": "its tower attends over all frames of a clip",
    "video_llava": "the class token in front of each frame stays in the prompt, and needs that frame",
    **dict.fromkeys(
        ("minicpm_ocr", "minicpmv4_6", "minicpmv4_7"), "its tower pools windows of patches between its layers"
    ),
    **dict.fromkeys(("gemma4", "gemma4_unified", "molmo2"), "patches are pooled over places after the tower"),
}
"""model_type -> why nothing can be chosen before its tower; of the others without an entry nobody has tried."""


@dataclass(frozen=True)
class GatedFeatures:
    """What a partial run gives.

    Attributes:
        counts: how many tokens each video has, L in all.
        rows: [L, D]; those that were not seen are filled in.
        deepstack: as in :class:`score_video.mllm.adapter.Features`.
        seen: what was.
    """

    counts: list[int]
    rows: Tensor
    deepstack: tuple[Tensor, ...]
    seen: Seen


def check_tower(model: Any, option: str = "before_tower must be None") -> None:
    """Raises ScoreError where nothing can be chosen before a model's tower; says why, and what ``option`` must be."""
    kind = model.config.model_type
    if kind not in TOKENS and kind not in FRAMES:
        reason = REFUSED.get(kind, "nobody has tried whether its tower can be run in part")
        raise ScoreError(f"{option} for models of type {kind!r}: {reason}")


def check_gate(model: Any, gate: Gate) -> None:
    """Raises ScoreError where nothing can be chosen before a model's tower, or not so; says why."""
    check_tower(model)
    kind = model.config.model_type
    if kind in FRAMES and gate.halo:
        raise ScoreError(
            f"halo must be 0 for models of type {kind!r}, whose tower sees whole frames or nothing, got {gate.halo}"
        )


def features_of_kept(
    tower: TokenTower, model: Any, inputs: Mapping[str, Any], kept: Tensor, encoded: Tensor
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Runs the tower on the tokens ``encoded``, of which what is not ``kept`` is their halo and left out of the result.

    Args:
        kept, encoded: int64 [K] and [E], ascending; each of the former is among the latter.

    Returns:
        as :meth:`TokenTower.features`, of the kept tokens.
    """
    rows, deepstack = tower.features(model, inputs, encoded)
    own = searchsorted(encoded, kept)
    return rows[own], tuple(layer[own] for layer in deepstack)


def gated_features(model: Any, inputs: Mapping[str, Any], gate: Gate) -> GatedFeatures:
    """Chooses among the tokens of ``pixel_values_videos``, and runs the tower on them and their halo.

    Args:
        model: one of a type in :data:`TOKENS`.
        inputs: what its processor made.
        gate: chooses.
    """
    tower = TOKENS[model.config.model_type]()
    thumbnails = tower.thumbnails(model, inputs)
    seen = gate.choose(thumbnails)
    rows, deepstack = features_of_kept(tower, model, inputs, seen.kept.index, seen.encoded)
    sources = fill_sources(thumbnails, seen.kept.index)
    return GatedFeatures(
        thumbnails.lengths.tolist(),
        filled(rows, sources),
        tuple(filled(layer, sources) for layer in deepstack),
        seen,
    )
