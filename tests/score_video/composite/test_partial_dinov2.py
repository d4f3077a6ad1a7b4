"""The table of what choosing before a real tower costs, with a reader that knows nothing and a tower of one layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from evaluation import partial_dinov2, partial_towers
from score_video.composite.features import make_features, tower_of
from score_video.composite.reader import Reader, ReaderConfig
from score_video.video.tower import VisionTower


def test_the_table(media: Path, tiny_tower: Callable[..., VisionTower], tmp_path: Path) -> None:
    for partition in ("policy", "test"):
        make_features(media, tiny_tower(), tmp_path, partition, range(20))  # type: ignore[arg-type]
    torch.manual_seed(0)
    reader = Reader(ReaderConfig(16, tower_of(tmp_path, "test"), width=24, layers=2, heads=2))
    setting = partial_dinov2.of_composite(reader, tmp_path, media, tiny_tower(), 20, 20, 1)
    lines = "\n".join(partial_towers.lines(setting, 1)).splitlines()
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("| ")][2:]
    trained = [f"policy trained with {sees}" for sees in partial_towers.HALOS]
    before = [*partial_towers.BEFORE, *trained]
    assert [row[0] for row in rows[3:]] == [name for name in before for _ in partial_towers.HALOS]
    assert [row[1] for row in rows[3:]] == [*partial_towers.HALOS] * len(before)
    for first in range(3, len(rows), 3):
        whole, ring, alone = (float(row[2].rstrip("%")) for row in rows[first : first + 3])
        assert 100 >= whole >= ring > alone == pytest.approx(10, abs=0.1)  # of the patches
        assert all(" ± " in cell for row in rows[first : first + 3] for cell in row[3:])
