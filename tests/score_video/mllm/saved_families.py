"""Processors of transformers for the tiny models of tiny_families.py, with a vocabulary of characters made on the spot.

To add a family: its tokens and the settings of its video processor, in :data:`PROCESSORS`. The classes are those that
transformers itself has for the family.
"""

from __future__ import annotations

import inspect
import string
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import transformers
from tiny import END, IMAGE, START, VIDEO, Family
from tiny_configs import AUDIO, BEGIN, FINISH
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

from score_video.mllm.registry import FAMILIES

PATCH = {"patch_size": 4}
SMALL = {**PATCH, "size": {"shortest_edge": 64, "longest_edge": 4096}}
_TEMPLATE = """\
{%- for message in messages -%}user {% for part in message['content'] -%}
{%- if part['type'] == 'video' %}VIDEO{% else %}{{ part['text'] }}{% endif -%}
{%- endfor -%}{% endfor %} assistant:"""


@dataclass(frozen=True)
class Processor:
    """How a family's processor is made.

    Attributes:
        tokens: special ones, with the ids that the tiny model has for them.
        named: attributes that the processor looks for in the tokenizer.
        video: what a prompt has where a video is to be.
        settings: of the video processor.
        others: of the processor.
        like: another family whose classes it uses.
        call: further arguments when it is called; without them frames would become large.
    """

    tokens: dict[str, int]
    video: str
    settings: dict[str, Any]
    named: dict[str, str] = field(default_factory=dict)
    others: dict[str, Any] = field(default_factory=dict)
    like: str | None = None
    call: dict[str, Any] = field(default_factory=dict)


QWEN = {"<|image_pad|>": IMAGE, "<|video_pad|>": VIDEO, "<|vision_start|>": START, "<|vision_end|>": END}
QWEN_NAMES = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
QWEN_NAMES |= {"vision_start_token": "<|vision_start|>", "vision_end_token": "<|vision_end|>"}
QWEN_NAMES |= {"vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>"}
RUN = Processor(QWEN, "<|vision_start|><|video_pad|><|vision_end|>", SMALL, QWEN_NAMES)
TIMES = Processor(QWEN, "<|video_pad|>", SMALL, QWEN_NAMES)
COMPASS = {"<|IMAGE_PAD|>": IMAGE, "<|VIDEO_PAD|>": VIDEO, "<|VISION_START|>": START, "<|VISION_END|>": END}
ERNIE = {"<|IMAGE|>": IMAGE, "<|VIDEO|>": VIDEO, "<|START|>": START, "<|END|>": END}
ERNIE_NAMES = {"image_token": "<|IMAGE|>", "video_token": "<|VIDEO|>", "image_start_token": "<|START|>"}
ERNIE_NAMES |= {"image_end_token": "<|END|>", "video_start_token": "<|START|>", "video_end_token": "<|END|>"}
GLM = {"<|image|>": IMAGE, "<|video|>": VIDEO, "<|begin_of_image|>": START, "<|end_of_image|>": END}
GLM |= {"<|begin_of_video|>": BEGIN, "<|end_of_video|>": FINISH}
GLM_VIDEO = "<|begin_of_video|><|video|><|end_of_video|>"
GEMMA = {"<|image|>": IMAGE, "<|video|>": VIDEO, "<|image>": START, "<image|>": END, "<|audio|>": AUDIO}
GEMMA |= {"<|audio>": BEGIN, "<audio|>": FINISH}
GEMMA_NAMES = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
GEMMA_NAMES |= {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
CPM = {"<|image_pad|>": IMAGE, "<|video_pad|>": VIDEO, "<image>": START, "</image>": END, "<slice>": 7, "</slice>": 8}
CPM |= {"<image_id>": 9, "</image_id>": 10}
CPM_NAMES = {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>", "image_start_token": "<image>"}
CPM_NAMES |= {"image_end_token": "</image>", "slice_start_token": "<slice>", "slice_end_token": "</slice>"}
CPM_NAMES |= {"image_id_start_token": "<image_id>", "image_id_end_token": "</image_id>"}
MINICPM = Processor(CPM, "<|video_pad|>", {**PATCH, "scale_resolution": 32}, CPM_NAMES)
OMNI = {"<|IMAGE|>": IMAGE, "<|VIDEO|>": VIDEO, "<|vision_bos|>": START, "<|vision_eos|>": END, "<|AUDIO|>": AUDIO}
OMNI |= {"<|audio_bos|>": BEGIN, "<|audio_eos|>": FINISH}
OMNI_NAMES = {"image_token": "<|IMAGE|>", "video_token": "<|VIDEO|>", "audio_token": "<|AUDIO|>"}
OMNI_NAMES |= {f"{kind}_{end}_token": f"<|{kind}_{end}|>" for kind in ("vision", "audio") for end in ("bos", "eos")}
THINKER = Processor(
    OMNI,
    "<|vision_bos|><|VIDEO|><|vision_eos|>",
    SMALL,
    OMNI_NAMES,
    call={"min_pixels": 64, "max_pixels": 1024},
)
MUSE = {"<|patch|>": IMAGE, "<|video|>": VIDEO, "<|image_start|>": START, "<|image_end|>": END, "<|vid_start|>": 7}
MUSE |= {"<|vid_end|>": 8, "<|audio|>": AUDIO, "<|vid_frame_separator|>": 10}
MOLMO = {"<im_patch>": IMAGE, "<|video|>": VIDEO, "<frame_start>": START, "<frame_end>": END, "<|image|>": 7}
MOLMO |= {"<im_col>": 8, "<im_start>": 9, "<im_end>": 10, "<low_res_im_start>": 11}
NEMOTRON = {"<image>": IMAGE, "<video>": VIDEO, "<img>": START, "</img>": END, "<so_embedding>": AUDIO}
NEMOTRON |= {"<so_start>": BEGIN, "<so_end>": FINISH}
PICTURES = {"<image>": IMAGE, "<video>": VIDEO}
PICTURE_NAMES = {"image_token": "<image>", "video_token": "<video>"}

PROCESSORS: dict[str, Processor] = {
    "cohere_compass": Processor(COMPASS, "<|VIDEO_PAD|>", SMALL),
    "cosmos3_edge": TIMES,
    "cosmos3_omni": Processor(QWEN, "<|video_pad|>", SMALL, QWEN_NAMES, like="qwen3_vl"),
    "dots3_note": Processor(
        {"<|imgpad|>": IMAGE, "<|video_pad|>": VIDEO, "<|audio_comp_pad|>": AUDIO},
        "<|video_pad|>",
        {**SMALL, "temporal_patch_size": 1},
    ),
    # it writes times onto frames, for which there is no font
    "ernie4_5_vl_moe": Processor(ERNIE, "<|START|><|VIDEO|><|END|>", {**SMALL, "draw_on_frames": False}, ERNIE_NAMES),
    "exaone4_5": RUN,
    "gemma4": Processor(GEMMA, "<|video|>", {**PATCH, "pooling_kernel_size": 2, "max_soft_tokens": 70}, GEMMA_NAMES),
    "gemma4_unified": Processor(GEMMA, "<|video|>", {**PATCH, "pooling_kernel_size": 1}, GEMMA_NAMES),
    "glm46v": Processor(GLM, GLM_VIDEO, SMALL),
    "glm4v": Processor(GLM, GLM_VIDEO, SMALL),
    "glm4v_moe": Processor(GLM, GLM_VIDEO, SMALL, like="glm4v"),
    "glm5_next": Processor(GLM, GLM_VIDEO, SMALL),
    "glm_ocr": Processor(GLM, GLM_VIDEO, SMALL, like="glm46v"),
    "glmga": Processor(GLM, GLM_VIDEO, SMALL, like="glm46v"),
    "hy_v4_vl": Processor(QWEN, RUN.video, PATCH, QWEN_NAMES),
    "hyperclovax_vision_v2": RUN,
    "kimi_k25": Processor(
        {
            "<|media_pad|>": IMAGE,
            "<|video|>": VIDEO,
            "<|media_begin|>": START,
            "<|media_end|>": END,
            "<|media_content|>": 7,
        },
        "<|video|>",
        PATCH,
        {"image_token": "<|media_pad|>", "video_token": "<|video|>"},
    ),
    "lfm3_vl": TIMES,
    "llava_next_video": Processor(
        PICTURES,
        "<video>",
        {"size": {"shortest_edge": 24}, "crop_size": {"height": 24, "width": 24}},
        PICTURE_NAMES,
        {**PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
    ),
    "minicpm_ocr": MINICPM,
    "minicpmv4_6": MINICPM,
    "minicpmv4_7": MINICPM,
    "minimax_m3_vl": Processor(
        {"]<]image[>[": IMAGE, "]<]video[>[": VIDEO, "]<]start of image[>[": START, "]<]end of image[>[": END},
        "]<]video[>[",
        {**PATCH, "min_pixels": 64, "max_pixels": 1024},
    ),
    "molmo2": Processor(
        MOLMO,
        "<|video|>",
        {**PATCH, "size": {"height": 24, "width": 24}, "pooling_size": [2, 2]},
        {"image_token": "<|image|>", "video_token": "<|video|>"},
    ),
    "muse_glimmer": Processor(MUSE, "<|video|>", PATCH),
    "muse_spark": Processor(MUSE, "<|video|>", PATCH),
    "nemotron_h_omni": Processor(
        NEMOTRON,
        "<video>",
        {**PATCH, "norm_mean": [0.5] * 3, "norm_std": [0.5] * 3, "video_target_num_patches": 24},
        {"image_token": "<image>"},
    ),
    "perception_lm": Processor(
        PICTURES, "<video>", {"size": {"height": 24, "width": 24}}, PICTURE_NAMES, {**PATCH, "pooling_ratio": 2}
    ),
    "qwen2_5_omni_thinker": THINKER,
    "qwen2_5_vl": RUN,
    "qwen2_vl": RUN,
    "qwen3_5": TIMES,
    "qwen3_5_moe": TIMES,
    "qwen3_omni_moe_thinker": THINKER,
    "qwen3_vl": TIMES,
    "qwen3_vl_moe": Processor(QWEN, "<|video_pad|>", SMALL, QWEN_NAMES, like="qwen3_vl"),
    "qwen4_exp": TIMES,
    "video_llama_3": Processor(QWEN, "<|video_pad|>", SMALL, QWEN_NAMES),
    "video_llava": Processor(
        PICTURES,
        "<video>",
        {"size": {"shortest_edge": 12}, "crop_size": {"height": 12, "width": 12}},
        others={**PATCH, "num_additional_image_tokens": 1},
    ),
}

ELSEWHERE = {
    "internvl": "test_real_processors.py",
    "llava_onevision": "test_real_processors.py",
    "smolvlm": "its processor needs num2words; test_real_processors.py's models have it where that is installed",
}
"""Families without a line in :data:`PROCESSORS`: where they are tested, or why not."""


def make_processor(name: str) -> Any:
    """The processor of a family of :data:`PROCESSORS`."""
    made = PROCESSORS[name]
    kind = made.like or FAMILIES[name].part_of or name
    images, videos = IMAGE_PROCESSOR_MAPPING_NAMES[kind], VIDEO_PROCESSOR_MAPPING_NAMES[kind]
    made_of: dict[str, Any] = {
        "image_processor": getattr(transformers, images.get("torchvision") or images["pil"])(),
        "video_processor": getattr(transformers, videos["torchvision"])(**made.settings),
        "tokenizer": _tokenizer(made),
        "chat_template": _TEMPLATE.replace("VIDEO", made.video),
    }
    processor = getattr(transformers, PROCESSOR_MAPPING_NAMES[kind])
    if "feature_extractor" in inspect.signature(processor.__init__).parameters:
        made_of["feature_extractor"] = transformers.WhisperFeatureExtractor(feature_size=16)
    return processor(**made_of, **made.others)


def save(folder: Path, family: Family, processor: Any) -> None:
    """As a checkpoint, model and processor."""
    family.model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _tokenizer(made: Processor) -> PreTrainedTokenizerFast:
    """A token for each character; what there is no token for is "?"."""
    vocabulary = {"<pad>": 0, "<bos>": 1, "<eos>": 2, **made.tokens}
    free = (number for number in range(300) if number not in set(vocabulary.values()))
    characters = "?" + string.ascii_lowercase + string.digits + " .:,<>|/\n-"
    vocabulary |= {character: next(free) for character in characters}
    vocabulary |= {f"#{number}": number for number in free}  # a tokenizer of fewer would be taken for none
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")  # type: ignore[assignment]
    tokenizer.decoder = decoders.Fuse()  # type: ignore[assignment]
    special = {f"special_{number}": token for number, token in enumerate(made.tokens)}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        extra_special_tokens={**special, **made.named},
    )
