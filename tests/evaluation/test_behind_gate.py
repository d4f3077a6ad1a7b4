"""The tables of what knowing what was seen is worth, after trainings of one step, on features made up here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers.made_up_features import TOWER, made_up, save_features

from evaluation import behind_gate, gates
from score_video import Compressor
from score_video.composite.reader import Reader, ReaderConfig
from score_video.errors import ScoreError
from score_video.policy.pretrained import BEHIND_GATE

READERS = Path("evaluation/readers")


def test_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each gate; a row for each kind of policy, with as many seeds as were asked for, and one of the gain."""
    torch.manual_seed(0)
    reader = Reader(ReaderConfig(6, TOWER, width=12, layers=1, heads=2))
    for module in (behind_gate, gates):
        monkeypatch.setattr(module, "shipped_reader" if module is gates else "composite_reader", lambda: reader)
    monkeypatch.setattr(behind_gate, "GATES", behind_gate.GATES[:2])
    monkeypatch.setattr(behind_gate, "RETENTIONS", (0.05, 0.1))
    features, tensors = tmp_path / "features", made_up()
    save_features(features, "test", tensors)
    seen = torch.rand(20, tensors["tokens"].shape[1]).argsort(1).argsort(1) < round(0.2 * tensors["tokens"].shape[1])
    save_features(features / "random-0.2-halo-0", "test", {**tensors, "kept": seen, "encoded": seen.clone()})
    gate = Compressor("random", 0.2)
    Compressor("uniform", 0.2, before_tower=gate).save_pretrained(features / "random-0.2-halo-0" / "gate")

    behind_gate.main(READERS, seeds=2, steps=1, videos=2, features=features, composite_videos=20)

    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("###")] == [
        "### The miniature's tower-2 and tower-4 behind evs-dithered, 30%",
        "### The miniature's tower-2 and tower-4 behind surprise-l2, 30%",
        "### DINOv2 behind random, 20%, alone",
    ]
    rows = [
        [cell.strip() for cell in line[1:-1].split("|")]
        for line in lines
        if line.startswith("| ") and "---" not in line
    ]
    tables = [rows[first : first + 6] for first in range(0, len(rows), 6)]
    assert len(tables) == 3
    for head, knows, does_not, package, rule, gained in tables:
        assert head == ["then", "5%", "10%"]
        assert (knows[0], does_not[0]) == (behind_gate.WITH, behind_gate.WITHOUT)
        assert all("to" in cell for cell in knows[1:] + does_not[1:])  # of two seeds
        assert all("±" in cell for cell in package[1:] + rule[1:])
        for column in (1, 2):
            means = [float(cells[column].split()[0]) for cells in (knows, does_not)]
            assert float(gained[column].split()[0]) == pytest.approx(means[0] - means[1], abs=0.11)


@pytest.mark.parametrize("use_seen", [True, False])
def test_what_is_trained(use_seen: bool) -> None:
    recipe = json.loads((BEHIND_GATE / "recipe.json").read_text(encoding="utf-8"))
    recipe["settings"]["max_steps"] = 1
    first, second = behind_gate.trained(recipe, READERS, use_seen, 2)
    assert first.config.use_seen is second.config.use_seen is use_seen
    assert not torch.equal(first.output.weight, second.output.weight)


def test_another_reader_is_refused(tmp_path: Path) -> None:
    recipe = json.loads((BEHIND_GATE / "recipe.json").read_text(encoding="utf-8"))
    with pytest.raises(ScoreError, match=r"lacks tower-1@"):
        behind_gate.trained(recipe, tmp_path, True, 1)
