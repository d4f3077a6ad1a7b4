"""Features of the composite world that no tower made: for tests that need neither media nor time."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from score_video import Compressor
from score_video.composite.features import WORLD
from score_video.composite.world import SYMBOLS, TASKS, TOKENS

TOWER = "0123456789abcdef"


def made_up() -> dict[str, Tensor]:
    """Twenty videos, 6 wide."""
    answers = torch.stack([torch.randint(0, count, (20,)) for count in TASKS.values()], 1)
    return {
        "tokens": torch.randn(20, TOKENS, 6).half(),
        "shown": (torch.rand(20, TOKENS, len(SYMBOLS)) < 0.02).to(torch.uint8) * 60,
        "live": (torch.rand(20, TOKENS) < 0.1).to(torch.uint8) * 60,
        "answers": answers,
    }


def save_features(folder: Path, partition: str, tensors: dict[str, Tensor], tower: str = TOWER) -> None:
    """Writes them as those of a partition's first twenty videos; the folder is made if it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"about": json.dumps({"world": WORLD, "tower": tower}), "sources": json.dumps(["made up"] * 20)}
    save_file(tensors, folder / f"{partition}-00000.safetensors", about)


def save_behind_gate(folder: Path, partition: str, tensors: dict[str, Tensor], kept: float, seen: float) -> None:
    """Writes them as what a tower made that saw a random share of the tokens, of which a share is kept."""
    place = torch.rand(tensors["tokens"].shape[:2]).argsort(1).argsort(1)
    marks = {name: place < round(of * place.shape[1]) for name, of in (("kept", kept), ("encoded", seen))}
    save_features(folder, partition, {**tensors, **marks})
    halo = 0 if kept == seen else 1
    rule = Compressor("uniform", kept, before_tower=Compressor("random", kept), halo=halo)
    rule.save_pretrained(folder / "gate")
