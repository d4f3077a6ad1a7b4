"""The table of what choosing before a ViT costs, with a reader that knows nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.readers import tiny_reader

from evaluation import partial_towers


def test_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One row for all tokens and for each rule after the tower; three for all that chooses before it."""
    monkeypatch.setattr(partial_towers, "RETENTIONS", (0.1, 0.5))
    tiny_reader(tower_attends=True, tower_depth=1, tower_width=16).save(tmp_path / "vit.safetensors")
    partial_towers.main([tmp_path / "vit.safetensors"], videos=2, steps=1, seeds=2)
    lines = capsys.readouterr().out.splitlines()
    assert "## vit" in lines
    rows = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines if line.startswith("| ")][2:]
    after, before = partial_towers.AFTER, (*partial_towers.BEFORE, "policy trained with whole frames")
    assert [row[0] for row in rows[: 1 + len(after)]] == ["all tokens", *(f"{name}, after it" for name in after)]
    assert [row[0] for row in rows[3:15]] == [name for name in before for _ in partial_towers.HALOS]
    assert len(rows) == 1 + len(after) + 3 * (len(before) + 1)
    for first in range(3, len(rows), 3):
        whole, ring, alone = (float(row[2].rstrip("%")) for row in rows[first : first + 3])
        assert 100 >= whole >= ring > alone == 10  # of the patches
        assert all("+" in cell or "-" in cell for row in rows[first + 1 : first + 3] for cell in row[3:])
