"""As score_video.testing, for families that scale every frame to a square: LLaVA-OneVision, InternVL and SmolVLM.

Their features go in as embeddings, and their processors hand over whole frames. SmolVLM's needs num2words.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

FAMILIES = ("llava_onevision", "internvl")
SIDE, PATCH = 40, 8  # pixels: frames of 5 x 5 patches, which LLaVA-OneVision pools to 3 x 3
_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>", "<img>", "</img>", "<IMG_CONTEXT>"]
_SPECIAL += ["<fake_token_around_image>", "<global-img>", *(f"<row_{r}_col_{c}>" for r in (1, 2) for c in (1, 2))]
_NAMED = {
    "image_token": "<image>",
    "video_token": "<video>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
}
_CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% for part in message['content'] -%}
{%- if part['type'] == 'video' %}<video>
{% else %}{{ part['text'] }}{% endif -%}
{%- endfor -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""


def save_square_model(folder: Path, family: str, width: int = 64) -> None:
    """Writes a model (float32, random weights of seed 0) and its processor, of one of ``FAMILIES`` or smolvlm."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    ids = tokenizer.get_vocab()
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 2}
    text = {"model_type": "qwen2", **sizes, "vocab_size": len(tokenizer), "num_attention_heads": 2}
    text |= {"num_key_value_heads": 2, "eos_token_id": ids["<|im_end|>"], "bos_token_id": None, "pad_token_id": 0}
    vision = {**sizes, "num_attention_heads": 2}
    make = {"llava_onevision": _llava, "internvl": _internvl, "smolvlm": _smolvlm}[family]
    model, processor = make(text, vision, ids)
    torch.manual_seed(0)
    for parameter in model.parameters():  # the usual 0.02 is too faint for what is seen to change the answer
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
    model.eval().save_pretrained(folder)
    size = {"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    kinds = {
        "llava_onevision": ("LlavaOnevisionImageProcessor", "LlavaOnevisionVideoProcessor"),
        "internvl": ("GotOcr2ImageProcessor", "InternVLVideoProcessor"),
        "smolvlm": ("SmolVLMImageProcessor", "SmolVLMVideoProcessor"),
    }[family]
    if family == "smolvlm":  # images are cut into up to four tiles
        size |= {"size": {"longest_edge": 2 * SIDE}, "max_image_size": {"longest_edge": SIDE}}
    files = {
        "processor_config.json": processor,
        "preprocessor_config.json": {"image_processor_type": kinds[0], **size},
        "video_preprocessor_config.json": {"video_processor_type": kinds[1], **size},
    }
    for name, values in files.items():
        (folder / name).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _llava(text: dict[str, Any], vision: dict[str, Any], ids: dict[str, int]) -> tuple[Any, dict[str, Any]]:
    from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration

    config = LlavaOnevisionConfig(
        text_config=text,
        vision_config={"model_type": "siglip_vision_model", **vision, "image_size": SIDE, "patch_size": PATCH},
        image_grid_pinpoints=[[SIDE, SIDE]],
        image_token_index=ids["<image>"],
        video_token_index=ids["<video>"],
        vision_feature_select_strategy="full",
        vision_feature_layer=-1,
    )
    processor = {
        "processor_class": "LlavaOnevisionProcessor",
        "num_image_tokens": (SIDE // PATCH) ** 2,
        "vision_feature_select_strategy": "full",
    }
    return LlavaOnevisionForConditionalGeneration(config), processor


def _internvl(text: dict[str, Any], vision: dict[str, Any], ids: dict[str, int]) -> tuple[Any, dict[str, Any]]:
    from transformers import InternVLConfig, InternVLForConditionalGeneration

    patch = SIDE // 8  # 8 x 8 patches, which are shuffled into 4 x 4 tokens
    config = InternVLConfig(
        text_config=text,
        vision_config={"model_type": "internvl_vision", **vision, "image_size": [SIDE] * 2, "patch_size": [patch] * 2},
        image_token_id=ids["<IMG_CONTEXT>"],
        image_seq_length=16,
    )
    return InternVLForConditionalGeneration(config), {"processor_class": "InternVLProcessor", "image_seq_length": 16}


def _smolvlm(text: dict[str, Any], vision: dict[str, Any], ids: dict[str, int]) -> tuple[Any, dict[str, Any]]:
    from transformers import SmolVLMConfig, SmolVLMForConditionalGeneration

    config = SmolVLMConfig(
        text_config={**text, "model_type": "llama"},
        vision_config={**vision, "image_size": SIDE, "patch_size": SIDE // 8},  # 8 x 8 patches, 4 x 4 tokens
        image_token_id=ids["<image>"],
        scale_factor=2,
        pad_token_id=0,
    )
    return SmolVLMForConditionalGeneration(config), {"processor_class": "SmolVLMProcessor", "image_seq_len": 16}


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=_SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["What happens in this video? Frame1: a dog runs, a red car stops."], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens=_NAMED,
        chat_template=_CHAT_TEMPLATE,
    )
