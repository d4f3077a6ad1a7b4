"""Files of weights are for whoever their folder is for: a server often runs as another user than the training did."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from score_video import Compressor, SurprisePolicy, SurprisePolicyConfig
from score_video.composite.tower_folder import write_tower_folder
from score_video.miniature.reader import Reader, ReaderConfig
from score_video.rl.checkpoint import save_tensors

WRITERS: dict[str, Callable[[Path], object]] = {
    "reader": lambda folder: Reader(ReaderConfig()).save(folder / "reader.safetensors"),
    "checkpoint": lambda folder: save_tensors(folder / "state.safetensors", {"a": torch.zeros(2)}),
    "tower": lambda folder: write_tower_folder(
        folder / "tower", SimpleNamespace(save_pretrained=lambda folder: None), {"a": torch.zeros(2)}, 14
    ),
    "compressor": lambda folder: Compressor(SurprisePolicy(SurprisePolicyConfig(4))).save_pretrained(folder / "own"),
}


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_files_have_the_mode_that_the_user_wants(kind: str, umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        WRITERS[kind](tmp_path)
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".safetensors" for path in files)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o666 & ~umask}
