"""What docs/training.md shows is so: its configurations train, its data loads, its tables name what there is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from score_video.commands.run_folder import RESULTS
from score_video.commands.train_config import SECTIONS, make_training
from score_video.rl.config import FIELDS
from score_video.rl.curriculum import STAGES
from score_video.rl.data import load_examples
from score_video.rl.pseudo_video import MOTIONS

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "training.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found
    return found


@pytest.mark.parametrize("text", blocks("yaml"))
def test_configurations(text: str) -> None:
    config = yaml.safe_load(text)
    assert set(config) <= set(SECTIONS)
    make_training(config.get("training", {}))


def test_data(tmp_path: Path) -> None:
    (text,) = blocks("json")
    for line in text.splitlines():
        media = json.loads(line).get("video") or json.loads(line)["image"]
        (tmp_path / media).parent.mkdir(exist_ok=True)
        (tmp_path / media).touch()
    (tmp_path / "data.jsonl").write_text(text)
    assert len(load_examples(tmp_path / "data.jsonl")) == 3


def test_names() -> None:
    for name in (*RESULTS, *STAGES, *MOTIONS, *SECTIONS):
        assert name in TEXT, name
    for name in re.findall(r"`(\w+)` above 1|at `(\w+)`|\(`(\w+)`, `(\w+)`\)", TEXT):
        assert {part for part in name if part} <= {*FIELDS}
