"""Which model families there are: what their compressed prompts are equal to, and why some cannot be compressed.

The tables in docs/models.md are made from these (tools/models_table.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Exactness = Literal["masked", "shortened"]
"""What a compressed prompt is equal to: the stock model on the whole prompt with the dropped tokens masked out; or the
stock model on the same shortened embeddings and positions, put together by hand."""

Positions = Literal["kept", "counted"]


@dataclass(frozen=True)
class Family:
    """A family of models.

    Attributes:
        models: the names by which people know them.
        adapter: "module:Class" in ``score_video.mllm.families``.
        exactness: what a compressed prompt is equal to.
        positions: those of kept tokens in the whole prompt, or their numbers in the shorter one.
        note: what is special about it, for the docs.
        part_of: the ``model_type`` of checkpoints of which this is a part; None: it has checkpoints of its own.
        since: the first release of transformers with which it was found to work; None: all that have it.
        loader: the class in transformers that loads it; None: the auto class does.
    """

    models: str
    adapter: str
    exactness: Exactness = "masked"
    positions: Positions = "kept"
    note: str = ""
    part_of: str | None = None
    since: str | None = None
    loader: str | None = None


_LINEAR = "linear attention and full attention in turn"
_WINDOWS = "sliding windows"
_INDEXED = "attends to the keys that an indexer picks"
_AUDIO = "audio stays"
_CHUNKS = "which frames are one video is read from the prompt, or said (`visual_layout`)"

# model_type of a configuration -> family
FAMILIES: dict[str, Family] = {
    "cohere_compass": Family(
        "Cohere Compass", "qwen2_vl:Qwen2VL", "shortened", note=f"{_WINDOWS}; DeepStack", since="5.24"
    ),
    "cosmos3_edge": Family(
        "Cosmos 3 Edge",
        "qwen2_vl:Cosmos3Edge",
        note="its processor needs `return_mm_token_type_ids=True`",
        since="5.24",
    ),
    "cosmos3_omni": Family("Cosmos 3 Omni", "qwen2_vl:Qwen2VL", note="DeepStack"),
    "dots3_note": Family("dots3-note", "general:General", "shortened", note=f"{_WINDOWS}, {_INDEXED}; {_AUDIO}"),
    "ernie4_5_vl_moe": Family("ERNIE-4.5-VL", "ernie:Ernie", note="two frames are one; experts by kind of token"),
    "exaone4_5": Family("EXAONE 4.5", "general:Counted", "shortened", "counted", note=_WINDOWS),
    "gemma4": Family("Gemma 4", "gemma4:Gemma4", "shortened", note=f"{_WINDOWS}; {_AUDIO}", since="5.24"),
    "gemma4_unified": Family(
        "Gemma 4, unified", "gemma4:Gemma4", "shortened", note=f"{_WINDOWS}; {_AUDIO}", since="5.24"
    ),
    "glm46v": Family("GLM-4.6V", "glm4v:Glm4V"),
    "glm4v": Family("GLM-4.1V", "glm4v:Glm4V"),
    "glm4v_moe": Family("GLM-4.5V", "glm4v:Glm4VMoe"),
    "glm5_next": Family("GLM-5-next", "glm4v:Glm5Next", "shortened", note=f"{_LINEAR}, {_INDEXED}"),
    "glm_ocr": Family("GLM-OCR", "glm4v:Glm4V"),
    "glmga": Family("GLM-GA", "glm4v:Glm4V", note="as GLM-4.6V, whose model it is"),
    "hy_v4_vl": Family("HunYuan V4-VL", "newlines:HunYuan", "shortened", note=f"{_INDEXED}; newlines can be dropped"),
    "hyperclovax_vision_v2": Family("HyperCLOVA X Vision 2", "general:Counted", "shortened", "counted"),
    "internvl": Family(
        "InternVL 3, 3.5 (the `-hf` ones)", "frame_by_frame:InternVL", note="frames are told by their headings, below"
    ),
    "kimi_k25": Family("Kimi-K2.5", "chunks:Kimi", note=f"four frames are one; {_CHUNKS}", since="5.24"),
    "lfm3_vl": Family("LFM3-VL", "general:General", "shortened", note=f"convolutions, {_WINDOWS}"),
    "llava_next_video": Family("LLaVA-NeXT-Video", "llava:LlavaNextVideo", note="videos of a batch equally long"),
    "llava_onevision": Family(
        "LLaVA-OneVision",
        "llava:LlavaOnevision",
        note="the newline after a video stays; videos of a batch equally long",
    ),
    "minicpm_ocr": Family("MiniCPM-OCR", "minicpm:MiniCPM", "shortened", note=f"{_LINEAR}; {_CHUNKS}"),
    "minicpmv4_6": Family("MiniCPM-V 4.6", "minicpm:MiniCPM", "shortened", note=f"{_LINEAR}; {_CHUNKS}"),
    "minicpmv4_7": Family("MiniCPM-V 4.7", "minicpm:MiniCPM47", "shortened", note=f"{_LINEAR}; {_CHUNKS}"),
    "minimax_m3_vl": Family(
        "MiniMax-M3-VL", "chunks:MiniMax", "shortened", "counted", note=f"attends to blocks; {_CHUNKS}"
    ),
    "molmo2": Family("Molmo2", "molmo2:Molmo2", note="images or videos, not both"),
    "muse_glimmer": Family("Muse Glimmer", "general:General", "shortened", note=_WINDOWS),
    "muse_spark": Family("Muse Spark", "general:General", "shortened", note=f"{_WINDOWS}; {_AUDIO}"),
    "nemotron_h_omni": Family(
        "Nemotron-H Omni",
        "nemotron:NemotronOmni",
        "shortened",
        note=f"Mamba; images or videos, not both; {_AUDIO}",
        since="5.24",
    ),
    "perception_lm": Family("Perception-LM", "llava:PerceptionLM", note="videos of a batch equally long", since="5.24"),
    "qwen2_5_omni_thinker": Family(
        "Qwen2.5-Omni, its thinker",
        "omni:Omni",
        note=_AUDIO,
        part_of="qwen2_5_omni",
        loader="Qwen2_5OmniThinkerForConditionalGeneration",
    ),
    "qwen2_5_vl": Family("Qwen2.5-VL", "qwen2_vl:Qwen2VL"),
    "qwen2_vl": Family("Qwen2-VL", "qwen2_vl:Qwen2VL"),
    "qwen3_5": Family("Qwen3.5", "qwen2_vl:Qwen2VL", "shortened", note=_LINEAR),
    "qwen3_5_moe": Family("Qwen3.5, mixture of experts", "qwen2_vl:Qwen2VL", "shortened", note=_LINEAR),
    "qwen3_omni_moe_thinker": Family(
        "Qwen3-Omni, its thinker",
        "omni:Omni",
        note=f"DeepStack; {_AUDIO}",
        part_of="qwen3_omni_moe",
        loader="Qwen3OmniMoeThinkerForConditionalGeneration",
    ),
    "qwen3_vl": Family("Qwen3-VL", "qwen2_vl:Qwen2VL", note="DeepStack"),
    "qwen3_vl_moe": Family("Qwen3-VL, mixture of experts", "qwen2_vl:Qwen2VL", note="DeepStack"),
    "qwen4_exp": Family("Qwen4-exp", "qwen2_vl:Qwen2VL", "shortened", note=f"{_LINEAR}, {_INDEXED}"),
    "smolvlm": Family("SmolVLM2", "frame_by_frame:SmolVLM", note="frames are told by their headings, below"),
    "video_llama_3": Family(
        "VideoLLaMA 3", "general:VideoLlama3", note="its processor must not compress (`use_token_compression=False`)"
    ),
    "video_llava": Family("Video-LLaVA", "llava:VideoLlava", note="a frame's class token stays", since="5.24"),
}

_NO_ANSWERS = "it makes features, labels or masks of a video, and answers no questions"
_QUERIES = (
    "a Q-Former has made 32 query tokens of each frame, which stand for no place in it and are few already: there is "
    "nothing to choose from"
)

# model_type -> why its videos are not compressed
REFUSED: dict[str, str] = {
    **dict.fromkeys(
        (
            "edgetam_video",
            "pe_audio_video",
            "pe_video",
            "sam2_video",
            "sam3_tracker_video",
            "sam3_video",
            "timesformer",
            "tvp",
            "videomae",
            "videomt",
            "videoprism",
            "vivit",
            "vjepa2",
            "xclip",
        ),
        _NO_ANSWERS,
    ),
    "embedding_gemma2": "it makes one embedding of a whole prompt, and answers no questions",
    "instructblip": _QUERIES,
    "instructblipvideo": _QUERIES,
    "qianfan_ocr": "its processor takes no videos, whatever its model says",
    "qwen2_5_omni": "its talker reads the whole prompt again; give the part that reads and writes, model.thinker",
    "qwen3_omni_moe": "its talker reads the whole prompt again; give the part that reads and writes, model.thinker",
}


def family_of_checkpoint(model_type: str) -> Family | None:
    """The family that answers about videos in checkpoints of that type; None: there is none."""
    parts = (family for family in FAMILIES.values() if family.part_of == model_type)
    return FAMILIES.get(model_type) or next(parts, None)


def refusal(model_type: object) -> str | None:
    """Why models of that type are not compressed; None: no reason is known."""
    return REFUSED.get(model_type) if isinstance(model_type, str) else None
