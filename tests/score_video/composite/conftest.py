"""Media are not in the repository: `make test-composite` fetches them, and other runs skip what needs them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from score_video.composite.features import make_features
from score_video.video.tower import VisionTower

MEDIA = Path(os.environ.get("SCORE_MEDIA", Path(__file__).resolve().parents[3] / "build" / "media"))


@pytest.fixture(scope="session")
def media() -> Path:
    if not (MEDIA / "openmoji.ttf").is_file():
        pytest.skip(f"there are no media in {MEDIA}: make test-composite fetches them")
    return MEDIA


def _tiny_tower(seed: int = 0) -> VisionTower:
    """A DINOv2 of one layer, of random weights."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(seed)
    config = Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=126, patch_size=14, mlp_ratio=2
    )
    return VisionTower("tiny", Dinov2Model(config).eval(), 126, 126, 14)


@pytest.fixture(scope="session")
def tiny_tower() -> Callable[..., VisionTower]:
    return _tiny_tower


@pytest.fixture(scope="session")
def features(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty videos of the partitions reader, validation and still after the tiny tower."""
    folder = tmp_path_factory.mktemp("features")
    for partition in ("reader", "validation", "still"):
        make_features(media, _tiny_tower(), folder, partition, range(20))  # type: ignore[arg-type]
    return folder
