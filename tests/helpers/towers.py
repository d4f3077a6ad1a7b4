"""A vision tower with random weights."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers


def save_tower(folder: Path, *, side: int = 4) -> Path:
    """A DINOv2 of 4 x 4 patches and width 32; or of another side."""
    torch.manual_seed(0)
    config = transformers.Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=14 * side, patch_size=14
    )
    transformers.Dinov2Model(config).save_pretrained(folder)
    return folder


def save_other_tower(folder: Path) -> Path:
    """A ViT of the same size, which cannot be run in part."""
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=56, patch_size=14
    )
    transformers.ViTModel(config).save_pretrained(folder)
    return folder
