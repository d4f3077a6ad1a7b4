"""``score compress`` with several rules, and on a tower's tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from helpers.towers import save_tower
from PIL import Image
from safetensors.torch import load_file

from score_video.cli import main
from score_video.commands.options import PRETRAINED_NAME


def compressed(out: Path, clip: Path, *options: str) -> dict[str, Any]:
    assert main(["compress", str(clip), "--frames", "8", "--size", "112", "--out", str(out), *options]) == 0
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def test_rules_beside_each_other(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = compressed(tmp_path / "both", clip, "--method", "pretrained", "--method", "evs", "--method", "uniform")
    assert "evs: kept " in capsys.readouterr().out
    alone = compressed(tmp_path / "alone", clip, "--method", "evs")
    first = compressed(tmp_path / "first", clip)
    assert both["method"] == first["method"] == PRETRAINED_NAME and both["kept_per_frame"] == first["kept_per_frame"]
    evs, uniform = both["compared"]
    assert (evs["method"], uniform["method"]) == ("evs", "uniform") and alone["compared"] == []
    assert evs["kept_per_frame"] == alone["kept_per_frame"]
    tokens, of_evs = (load_file(tmp_path / name / "tokens.safetensors") for name in ("both", "alone"))
    assert tokens["compared.1.index"].tolist() == of_evs["index"].tolist()
    assert evs["kept_by_both"] == len(set(tokens["index"].tolist()) & set(of_evs["index"].tolist()))
    heights = [Image.open(tmp_path / name / "contact.png").height for name in ("both", "alone")]
    assert heights[0] > heights[1]


def test_the_tokens_of_a_tower(tmp_path: Path, clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tower = save_tower(tmp_path / "tower")
    capfd.readouterr()
    summary = compressed(tmp_path / "out", clip, "--tower", str(tower), "--retention", "0.5")
    assert "Loading weights" not in capfd.readouterr().err
    assert summary["tower"] == str(tower) and summary["grid"] == [8, 4, 4] and summary["patch"] == 14
    assert load_file(tmp_path / "out" / "tokens.safetensors")["tokens"].shape == (64, 32)
    assert {"load tower", "tower"} <= set(summary["milliseconds"]) and "patch" not in summary["milliseconds"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--method", "evs", "--method", "evs"], "--method must name each rule once, got evs twice"),
        (["--method", "evs"] * 4, "--method can be given 3 times, got 4"),
        (["--method", "evs", "--method", "norm", "--policy", "run"], "give --policy or --method, not both"),
        (["--tower", "nowhere"], "nowhere: is neither a folder nor the id of a repository on the hub"),
    ],
)
def test_refusals(
    options: list[str], says: str, tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compress", str(clip), "--out", str(tmp_path / "out"), *options]) == 2
    assert capsys.readouterr().err == f"score: error: {says}\n"
    assert not (tmp_path / "out").exists()
