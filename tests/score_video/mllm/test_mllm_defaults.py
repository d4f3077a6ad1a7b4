"""torch's default dtype and device are nothing to the compression of a model's inputs, nor to that of a file."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.defaults import DEFAULTS, assert_same_under, torch_default
from safetensors.torch import load_file
from tiny import FAMILIES, Family
from tiny_processor import TinyProcessor

from score_video.commands.compress import CompressOptions, compress_video
from score_video.commands.frames import Frames
from score_video.commands.options import Chosen
from score_video.compressor import Compressor
from score_video.mllm import compress_inputs
from score_video.mllm.environment import MllmEnvironment
from score_video.rl.environment import Selection


def stock_model_works(family: Family, inputs: dict[str, Any], default: torch.dtype | str) -> bool:
    with torch.no_grad():
        expected = family.model(**inputs).logits
        try:
            with torch_default(default):
                actual = family.model(**inputs).logits
        except (RuntimeError, TypeError, ValueError, NotImplementedError):
            return False
        return actual.device == expected.device and torch.equal(actual, expected)


made = functools.cache(lambda name: FAMILIES[name]())


@pytest.mark.parametrize("default", DEFAULTS, ids=str)
@pytest.mark.parametrize("name", FAMILIES)
def test_compress_inputs(name: str, default: torch.dtype | str) -> None:
    family = made(name)
    batch = family.batch([[3, ("video", 4), 2], [2, ("video", 4), 5]])
    inputs = batch.inputs()
    pictures = batch.pictures if family.told else None
    compressor = Compressor(retention=0.4)
    if not stock_model_works(family, inputs, default):
        pytest.skip("the stock model itself raises, or gives something else")

    def run() -> Any:
        compressed = compress_inputs(family.model, dict(inputs), compressor, visual_layout=pictures)
        return dict(compressed), compressed.selected, compressed.kept

    assert_same_under(default, run)


@pytest.mark.parametrize("default", DEFAULTS, ids=str)
def test_compress_video(clip: Path, default: torch.dtype | str, tmp_path: Path) -> None:
    def run() -> Any:
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        compress_video(clip, folder, Chosen(Compressor(retention=0.2), "test"), CompressOptions(Frames(6), 14, 56))
        return {path.name: load_file(path, device="cpu") for path in sorted(folder.glob("*.safetensors"))}

    assert_same_under(default, run)


@pytest.mark.parametrize("default", DEFAULTS, ids=str)
def test_training_environment(clip: Path, default: torch.dtype | str, tmp_path: Path) -> None:
    """Its model, the processor and the video of an example; read anew, and from the cache."""
    family = made("qwen2_5_vl")
    example = {
        "id": "1",
        "video": str(clip),
        "image": None,
        "questions": [{"question": "what is it?", "answer": "a cat", "options": []}],
    }

    def run() -> Any:
        results = []
        for _ in range(2):
            environment = MllmEnvironment(family.model, TinyProcessor(family), tmp_path / str(default), num_frames=4)
            batch = environment.encode([example])
            length = len(batch.videos.tokens)
            index = torch.arange(0, length, 2, device="cpu")
            keep = torch.tensor([[len(index)]], dtype=torch.int32, device="cpu")
            results.append((batch.videos, environment.answer(batch, Selection(index, keep), divergence=True)))
        return results

    assert_same_under(default, run)
