"""How a tower whose weights come out of a package is written: as a folder that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from score_video.files import output_folder

_FILES = ("config.json", "model.safetensors", "preprocessor_config.json")


def write_tower_folder(out: Path, config: Any, weights: dict[str, Tensor], side: int) -> None:
    """Writes the folder that :func:`score_video.video.tower.load_tower` and transformers load.

    Args:
        out: the folder to write; it must not be there, or be empty.
        config: what transformers has for its kind of model.
        weights: by the names that its model has for them.
        side: of the square that frames are scaled to, in pixels; they are normalised as ImageNet's are.

    Raises:
        ScoreError: there is something at ``out``.
    """
    processor = {
        "do_center_crop": False,
        "size": {"height": side, "width": side},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    }
    with output_folder(out, _FILES) as folder:
        config.save_pretrained(folder)
        (folder / "model.safetensors").write_bytes(save(weights, {"format": "pt"}))
        (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=2), encoding="utf-8")
