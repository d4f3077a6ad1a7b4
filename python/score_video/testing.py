"""Small video MLLMs with random weights, saved with their processors: for trying things where no model is at hand.

Nothing is downloaded: the tokenizer is trained on the spot. The same folder is made each time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from score_video.errors import ScoreError

SavedFamily = Literal["qwen2_5_vl", "qwen3_vl", "qwen3_5", "qwen3_5_moe"]

_SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
_SPECIAL += [f"<|{name}|>" for name in ("vision_start", "vision_end", "vision_pad", "image_pad", "video_pad")]
_TEXT = [
    "What happens in this video? A dog runs over the grass and a red car stops.",
    "Describe the picture. Which of the two videos is longer? The answer is <0.5 seconds>.",
    "The quick brown fox jumps over the lazy dog 0123456789 times.",
]
_CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'video' -%}<|vision_start|><|video_pad|><|vision_end|>
{%- elif part['type'] == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>
{%- else -%}{{ part['text'] }}{%- endif -%}
{%- endfor -%}{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
{% endif -%}
"""


def save_tiny_model(
    folder: Path,
    family: SavedFamily,
    *,
    layers: int = 2,
    vision_layers: int = 2,
    width: int = 64,
    tokens_per_frame: int = 48,
) -> None:
    """Writes a model (float32, random weights of seed 0) and its processor.

    Args:
        folder: made if it is not there.
        family: what its config.json calls it.
        layers, vision_layers: how many the language model and the tower have; at least 2. Where linear attention and
            full attention take turns, the last layer has full attention.
        width: hidden size of both, a multiple of 32.
        tokens_per_frame: frames of videos are scaled to about this many tokens at most.

    Raises:
        ScoreError: another family.
    """
    if family not in _PATCH:
        raise ScoreError(f"family must be one of {', '.join(_PATCH)}, got {family!r}")
    folder.mkdir(parents=True, exist_ok=True)
    ids = _save_tokenizer(folder)
    patch = _PATCH[family]
    _save_processor(folder, family, patch, tokens_per_frame)
    sizes = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": layers}
    heads = {"num_attention_heads": width // 32, "num_key_value_heads": width // 32}
    text: dict[str, Any] = {
        **sizes,
        **heads,
        "vocab_size": ids["size"],
        "max_position_embeddings": 32768,
        "pad_token_id": 0,
    }
    text |= {"bos_token_id": None, "eos_token_id": ids["<|im_end|>"], "tie_word_embeddings": True}
    vision = {"depth": vision_layers, "hidden_size": width, "intermediate_size": 2 * width, "num_heads": width // 32}
    vision |= {"out_hidden_size": width, "patch_size": patch}
    named: dict[str, Any] = {f"{name}_token_id": ids[f"<|{token}|>"] for name, token in _TOKEN_OF_ROLE.items()}
    model = _make(family, text, vision, named, window=4 * patch)
    model.generation_config.update(do_sample=False, eos_token_id=ids["<|im_end|>"], pad_token_id=0)
    model.save_pretrained(folder)


_QWEN2_5 = "qwen2_5_vl"
_CLASSES: dict[str, str] = {  # what transformers' classes begin with
    _QWEN2_5: "Qwen2_5_VL",
    "qwen3_vl": "Qwen3VL",
    "qwen3_5": "Qwen3_5",
    "qwen3_5_moe": "Qwen3_5Moe",
}
_PATCH = {family: 14 if family == _QWEN2_5 else 16 for family in _CLASSES}  # pixels, in height and in width

_TOKEN_OF_ROLE = {
    "image": "image_pad",
    "video": "video_pad",
    "vision_start": "vision_start",
    "vision_end": "vision_end",
}


def _make(
    family: SavedFamily, text: dict[str, Any], vision: dict[str, Any], named: dict[str, Any], *, window: int
) -> Any:
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
    if family == _QWEN2_5:
        rope["mrope_section"] = [4, 6, 6]
        vision |= {"window_size": window, "fullatt_block_indexes": [vision["depth"] - 1], "tokens_per_second": 1}
    else:
        rope |= {"mrope_section": [6, 5, 5], "mrope_interleaved": True}
        text["head_dim"] = 32
        vision["num_position_embeddings"] = 2304
    if family == "qwen3_vl":
        vision["deepstack_visual_indexes"] = [0]
    elif family.startswith("qwen3_5"):
        text["layer_types"] = ["linear_attention"] * (text["num_hidden_layers"] - 1) + ["full_attention"]
        # vLLM's kernels for CPUs have these widths of heads alone
        text |= {"linear_key_head_dim": 128, "linear_value_head_dim": 128}
        text |= {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
        rope["partial_rotary_factor"] = 1.0
    if family.endswith("_moe"):
        text |= {"num_experts": 4, "num_experts_per_tok": 2}
        text |= {"moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}
    name = _CLASSES[family]
    config = getattr(transformers, f"{name}Config")(
        text_config={**text, "rope_parameters": rope}, vision_config=vision, **named
    )
    config.tie_word_embeddings = True
    torch.manual_seed(0)
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    for parameter in model.parameters():  # the usual 0.02 is too faint for what is seen to change the answer
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=1.5 * parameter[0].numel() ** -0.5)
    return model


def _save_tokenizer(folder: Path) -> dict[str, Any]:
    """Trains byte-level BPE; the ids of the special tokens, and "size", the size of the vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=_SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(_TEXT, trainer)
    fast = transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=_SPECIAL[1:],
        chat_template=_CHAT_TEMPLATE,
    )
    fast.save_pretrained(folder)
    return {**{token: tokenizer.token_to_id(token) for token in _SPECIAL}, "size": tokenizer.get_vocab_size()}


def _save_processor(folder: Path, family: SavedFamily, patch: int, tokens_per_frame: int) -> None:
    """Written by hand: making the processors needs torchvision, which has no place in every environment."""
    area = (2 * patch) ** 2
    common = {
        "patch_size": patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "processor_class": "Qwen2_5_VLProcessor" if family == _QWEN2_5 else "Qwen3VLProcessor",
    }
    image: dict[str, Any] = {"image_processor_type": "Qwen2VLImageProcessor"}
    image["size"] = {"shortest_edge": 4 * area, "longest_edge": tokens_per_frame * area}
    video: dict[str, Any] = {
        "video_processor_type": "Qwen2VLVideoProcessor" if family == _QWEN2_5 else "Qwen3VLVideoProcessor"
    }
    video["cap_pixels_per_frame"] = False  # the default changes in transformers 5.22
    # a frame's size for Qwen2.5-VL, the whole video's for those after it: here 32 frames of it
    longest = tokens_per_frame * area * (1 if family == _QWEN2_5 else 32)
    video["size"] = {"shortest_edge": 4 * area, "longest_edge": longest}
    for name, special in (("preprocessor_config.json", image), ("video_preprocessor_config.json", video)):
        (folder / name).write_text(json.dumps({**common, **special}, indent=2) + "\n", encoding="utf-8")
