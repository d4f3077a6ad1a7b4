"""The tables of what knowing what was seen is worth, after trainings of one step, on features made up here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.made_up_features import TOWER, made_up, save_behind_gate, save_features

from evaluation import behind_gate, gates
from score_video.composite import train_policy
from score_video.composite.reader import Reader, ReaderConfig

READERS = Path(__file__).parents[2] / "evaluation" / "readers"


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the test, and behind the recipe's gates those that it trains on; the recipe is for these."""
    torch.manual_seed(0)
    reader = Reader(ReaderConfig(6, TOWER, width=12, layers=1, heads=2))
    reader.save(tmp_path / "reader.safetensors")
    monkeypatch.setattr(gates, "shipped_reader", lambda: reader)
    monkeypatch.setattr(behind_gate, "composite_reader", lambda: reader)
    monkeypatch.setattr(train_policy, "shipped_reader", lambda: tmp_path / "reader.safetensors")
    recipe = train_policy.read_recipe(behind_gate=True)
    recipe["composite"] |= {"tower": TOWER, "videos": 20}
    recipe["settings"] |= {"per_device_train_batch_size": 2, "num_generations": 2, "max_steps": 1}
    monkeypatch.setattr(behind_gate, "read_recipe", lambda behind_gate: recipe)
    save_features(tmp_path / "features", "test", made_up())
    for gate in recipe["composite"]["gates"]:
        save_behind_gate(tmp_path / "features" / gate, "policy", made_up(), kept=0.3, seen=0.3)
    return tmp_path / "features"


def test_the_tables(features: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each gate; a row for each kind of policy, with as many seeds as were asked for, and one of the gain."""
    monkeypatch.setattr(behind_gate, "GATES", behind_gate.GATES[:2])
    monkeypatch.setattr(behind_gate, "RETENTIONS", (0.05, 0.1))
    save_behind_gate(features / "random-0.2-halo-0", "test", made_up(), kept=0.2, seen=0.2)

    behind_gate.main(features, READERS, seeds=2, steps=1, videos=2, composite_videos=20)

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
def test_what_is_trained(use_seen: bool, features: Path) -> None:
    first, second = behind_gate.trained(behind_gate.read_recipe(True), features, READERS, use_seen, 2)
    assert first.config.use_seen is second.config.use_seen is use_seen
    assert first.config.behind_gate and second.config.behind_gate
    assert not torch.equal(first.output.weight, second.output.weight)
