"""Vision towers of transformers: tokens in their places, without class tokens and registers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from score_video.errors import ScoreError
from score_video.video.tower import VisionTower, load_tower

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def saved(folder: Path, kind: str) -> Path:
    """A tiny tower with random weights."""
    torch.manual_seed(0)
    if kind == "dinov2":
        config: Any = transformers.Dinov2Config(**SIZES, image_size=56, patch_size=14)
        model: Any = transformers.Dinov2Model(config)
    elif kind == "registers":
        config = transformers.Dinov2WithRegistersConfig(**SIZES, image_size=56, patch_size=14, num_register_tokens=4)
        model = transformers.Dinov2WithRegistersModel(config)
    elif kind == "siglip":
        vision = {**SIZES, "intermediate_size": 64, "image_size": 64, "patch_size": 16}
        text = {**SIZES, "intermediate_size": 64, "vocab_size": 50}
        model = transformers.SiglipModel(transformers.SiglipConfig(vision_config=vision, text_config=text))
    elif kind == "vit":
        config = transformers.ViTConfig(**SIZES, intermediate_size=64, image_size=64, patch_size=16)
        model = transformers.ViTForImageClassification(config)  # has no pooler, which ViTModel has
    elif kind == "swin":
        config = transformers.SwinConfig(
            image_size=64, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[1, 2], window_size=4
        )
        model = transformers.SwinModel(config)
    elif kind == "clip":
        vision = {**SIZES, "intermediate_size": 64, "image_size": 64, "patch_size": 16}
        text = {**SIZES, "intermediate_size": 64, "vocab_size": 50}
        model = transformers.CLIPModel(transformers.CLIPConfig(vision_config=vision, text_config=text))
    elif kind == "dinov3":
        sizes = {**SIZES, "intermediate_size": 64, "image_size": 64, "patch_size": 16, "num_register_tokens": 4}
        model = transformers.DINOv3ViTModel(transformers.DINOv3ViTConfig(**sizes))
    elif kind == "bert":
        model = transformers.BertModel(transformers.BertConfig(**SIZES, intermediate_size=64, vocab_size=50))
    model.save_pretrained(folder)
    return folder


GRIDS = {
    "dinov2": (4, 4, 32),
    "registers": (4, 4, 32),
    "siglip": (4, 4, 32),
    "clip": (4, 4, 32),
    "dinov3": (4, 4, 32),
    "vit": (4, 4, 32),
    "swin": (8, 8, 32),
}


@pytest.mark.parametrize("kind", list(GRIDS))
def test_tokens_lie_where_their_patches_do(kind: str, tmp_path: Path) -> None:
    """A patch that changes changes its own token most."""
    tower = load_tower(str(saved(tmp_path / kind, kind)), torch.device("cpu"))
    rows, columns, width = GRIDS[kind]
    rng = np.random.default_rng(0)
    frames = rng.integers(100, 140, (10, 64, 64, 3), dtype=np.uint8)
    frames[1:] = frames[0]
    cell = 64 // rows
    places = rng.choice(rows * columns, 9, replace=False)
    for frame, place in enumerate(places.tolist(), start=1):
        y, x = place // columns * cell, place % columns * cell
        frames[frame, y : y + cell, x : x + cell] = rng.integers(0, 256, (cell, cell, 3))
    videos = tower.encode(frames)
    assert videos.tokens.shape == (10 * rows * columns, width) and videos.num_videos == 1
    assert (int(videos.tokens_per_frame[0]), int(videos.columns[0])) == (rows * columns, columns)
    tokens = videos.tokens.view(10, -1, width)
    change = (tokens[1:] - tokens[0]).norm(dim=2)
    assert change.argmax(1).tolist() == places.tolist()


def test_it_is_what_the_model_says(tmp_path: Path) -> None:
    """The normalisation and size of the processor's file; any number of frames at a time."""
    folder = saved(tmp_path / "dinov2", "dinov2")
    settings = {"size": {"shortest_edge": 64}, "crop_size": {"height": 42, "width": 42}, "image_mean": [0.1, 0.2, 0.3]}
    (folder / "preprocessor_config.json").write_text(json.dumps({**settings, "image_std": [0.4, 0.5, 0.6]}))
    tower = load_tower(str(folder), torch.device("cpu"))
    assert (tower.height, tower.width, tower.patch) == (42, 42, 14)
    frames = np.random.default_rng(0).integers(0, 256, (9, 42, 42, 3), dtype=np.uint8)
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    mean, std = torch.tensor([0.1, 0.2, 0.3])[:, None, None], torch.tensor([0.4, 0.5, 0.6])[:, None, None]
    with torch.inference_mode():
        expected = transformers.AutoModel.from_pretrained(folder)((pixels - mean) / std).last_hidden_state[:, 1:]
    torch.testing.assert_close(tower.encode(frames).tokens, expected.flatten(0, 1), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_a_tower(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match="tower must be a vision model of transformers, got BertModel"):
        load_tower(str(saved(tmp_path / "bert", "bert")))
    with pytest.raises(FileNotFoundError, match="is neither a folder nor the id of a repository"):
        load_tower("nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScoreError, match="cannot be loaded as a vision tower") as caught:
        load_tower(str(tmp_path / "empty"))
    assert "\n" not in str(caught.value)
    folder = saved(tmp_path / "vit", "vit")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ScoreError, match=r"lacks .* of its weights, "):
        load_tower(str(folder))


def test_an_output_that_is_no_grid() -> None:
    tower = VisionTower("a tower", torch.nn.Linear(1, 1), 64, 64, 16)
    with pytest.raises(ScoreError, match="tower must make a token of each patch: a tower makes 100 of 64x64 pixels"):
        tower._patches(torch.zeros(2, 100, 8))
