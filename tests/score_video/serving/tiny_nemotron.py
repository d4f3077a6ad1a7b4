"""A small Nemotron Nano VL for vLLM: configuration and tokenizer; its weights are vLLM's own made-up ones.

Published checkpoints bring their configuration's class along. So does this one, as the code that vLLM is told to trust.
"""

from __future__ import annotations

import json
from pathlib import Path

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

WIDTH, PATCH, IMAGE = 64, 16, 128
TOKENS_PER_FRAME = (IMAGE // PATCH // 2) ** 2
VIDEO = "<video>"
_SPECIAL = ["<pad>", "<s>", "</s>", "<image>", "<img>", "</img>"]

_CODE = """\
from transformers import NemotronHConfig, PretrainedConfig


class TinyNemotronConfig(PretrainedConfig):
    model_type = "NemotronH_Nano_VL_V2"
    is_composition = True

    def __init__(self, text_config=None, vision_config=None, **others):
        self.text_config = NemotronHConfig(**(text_config or {}))
        self.vision_config = PretrainedConfig(**(vision_config or {}))
        super().__init__(**others)

    def get_text_config(self, *args, **kwargs):
        return self.text_config
"""


def save_tiny_nemotron(folder: Path) -> None:
    """Writes the folder: a language model of a Mamba, an attention and an MLP layer behind RADIO's smallest tower."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=_SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["Frame 1 sampled at 0.50 seconds: What happens?"], trainer)
    fast = transformers.PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(folder)
    text = {
        "dtype": "bfloat16",
        "vocab_size": 512,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "layers_block_type": ["linear_attention", "full_attention", "mlp"],
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "mamba_num_heads": 4,
        "mamba_head_dim": 32,
        "n_groups": 2,
        "ssm_state_size": 32,
        "max_position_embeddings": 8192,
    }
    config = {
        "architectures": ["NemotronH_Nano_VL_V2"],
        "model_type": "NemotronH_Nano_VL_V2",
        "auto_map": {"AutoConfig": "configuration_tiny.TinyNemotronConfig"},
        "dtype": "bfloat16",
        "text_config": text,
        "vision_config": {"args": {"model": "vit_small_patch16_224", "cpe_max_size": 256}, "patch_size": PATCH},
        "force_image_size": IMAGE,
        "patch_size": PATCH,
        "downsample_ratio": 0.5,
        "ps_version": "v2",
        "template": "",
        "image_tag_type": "internvl",
        "use_thumbnail": True,
        "norm_mean": [0.5, 0.5, 0.5],
        "norm_std": [0.5, 0.5, 0.5],
        "vit_hidden_size": 384,
        "projector_hidden_size": 2 * WIDTH,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    (folder / "configuration_tiny.py").write_text(_CODE)
