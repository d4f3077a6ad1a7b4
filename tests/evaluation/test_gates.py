"""The table of what a choice before the tower costs, on features made up here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.made_up_features import TOWER, made_up, save_behind_gate, save_features

from evaluation import gates
from score_video.composite.reader import Reader, ReaderConfig


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the whole tower; behind a gate that keeps everything; and behind one that keeps a tenth, and sees a third."""
    torch.manual_seed(0)
    reader = Reader(ReaderConfig(6, TOWER, width=12, layers=1, heads=2))
    monkeypatch.setattr(gates, "shipped_reader", lambda: reader)
    folder, tensors = tmp_path / "features", made_up()
    save_features(folder, "test", tensors)
    save_behind_gate(folder / "random-1.0-halo-0", "test", tensors, kept=1.0, seen=1.0)
    save_behind_gate(folder / "random-0.1-halo-1", "test", tensors, kept=0.1, seen=1 / 3)
    return folder


def test_the_table(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gates.main(features, 20, ["divprune", "norm"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[:3] for row in cells] == [
        [name, work, method]
        for name, work in (
            ("everything", "100%"),
            ("50% of the frames", "50%"),
            ("30% of the frames", "25%"),
            ("random, 10%, halo 1", "33%"),
            ("random, 100%, alone", "100%"),
        )
        for method in ("divprune", "norm")
    ]
    for row in cells:
        if row[0] == "random, 100%, alone":  # the same choices: no difference, and no error
            assert row[3:] == ["+0.0 ± 0.0"] * 4
    assert [row[6] for row in cells if row[0].startswith("random, 10%")] == ["", ""]  # it keeps less than 25%
    assert all("±" in cell for row in cells for cell in row[3:6])
