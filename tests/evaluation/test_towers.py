"""The tables of real towers that nothing was trained on, on features made up here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.made_up_features import TOWER, made_up, save_features

from evaluation import towers
from score_video import Compressor
from score_video.composite.reader import Reader, ReaderConfig
from score_video.errors import ScoreError


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two towers, whose readers are there."""
    torch.manual_seed(0)
    paths = []
    for name, tower in (("one", TOWER), ("other", TOWER[::-1])):
        paths.append(tmp_path / f"{name}.safetensors")
        Reader(ReaderConfig(6, tower, width=12, layers=1, heads=2)).save(paths[-1])
        save_features(tmp_path / name, "test", made_up(), tower)
    monkeypatch.setattr(towers, "readers", lambda: paths)
    return tmp_path


def test_the_tables(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Compressor("random", 0.1).save_pretrained(features / "mine")
    towers.main([features / "one", features / "other"], 20, ["divprune-whitened", str(features / "mine")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines if line.startswith("## ")] == ["## one", "## other"]
    cells = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("| ")]
    assert [row[0] for row in cells] == ["", "divprune", "divprune-whitened", "mine", "oracle"] * 2
    for row in cells:
        assert len(row) == 2 + 2 * len(towers.RETENTIONS)
        if row[0] == "divprune":
            assert row[6:11] == [""] * 5
        elif row[0]:
            assert all("±" in cell for cell in row[1:11])
        if row[0] not in ("", "oracle"):
            assert float(row[11]) > 0


def test_a_tower_without_a_reader(features: Path) -> None:
    save_features(features / "third", "test", made_up(), "f" * 16)
    with pytest.raises(
        ScoreError, match=r"third is of the tower f{16}, which no reader of the checkout was trained on"
    ):
        towers.main([features / "third"], 20)


def test_readers_of_the_checkout() -> None:
    """One for each of the three towers, and each loads."""
    found = [Reader.load(path).config for path in towers.readers()]
    assert len({config.tower for config in found}) == len(found) == 3
