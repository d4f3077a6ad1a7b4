"""``score demo``: everything it writes, from a training of a few steps."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from helpers.readers import tiny_reader
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from score_video.cli import main
from score_video.commands import demo as module
from score_video.drawing.charts import CELL, NAMES, Shown, draw_accuracy, draw_kept, spread_labels
from score_video.drawing.overlay import RULE_COLOURS
from score_video.methods import METHODS
from score_video.miniature import environment as miniature
from score_video.miniature.environment import MiniatureEnvironment
from score_video.miniature.evaluate import choose_by_policy, encode_split, evaluate
from score_video.policy import SurprisePolicy


@pytest.fixture(autouse=True)
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny reader in the place of the package's, and an empty current directory."""
    tiny_reader().save(tmp_path / "reader.safetensors")
    monkeypatch.setattr(miniature, "shipped_reader", lambda: tmp_path / "reader.safetensors")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


def test_everything_is_written_and_agrees(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--steps", "10", "--videos", "5", "--seed", "2"]) == 0
    printed = capfd.readouterr().out
    folder = Path("score-demo")
    assert {path.name for path in folder.iterdir()} == {"policy", "results.json", "accuracy.png", "kept.png"}
    assert [path.name for path in Path().iterdir()] == ["score-demo"]

    report = json.loads((folder / "results.json").read_text())
    names = {module.POLICY, *METHODS, "oracle"}
    assert set(report["methods"]) == names
    assert (report["steps"], report["videos"], report["seed"]) == (10, 5, 2)
    for name in names:
        assert list(report["methods"][name]) == ["0.02", "0.05", "0.1", "0.25"]
        assert name in printed
    ranked = [row["0.1"]["accuracy"] for row in report["methods"].values()]
    assert ranked == sorted(ranked, reverse=True)
    assert f"{100 * report['full']['accuracy']:.1f}" in printed
    assert "step 10 of 10: reward" in printed

    # the policy that was saved is the one that was tested
    environment = MiniatureEnvironment()
    policy = SurprisePolicy.from_pretrained(folder / "policy")
    batches = encode_split(environment, "lookalike", "test", 2, 5)
    again = evaluate(environment, batches, choose_by_policy(policy), 0.25)
    assert again.mean == report["methods"][module.POLICY]["0.25"]["accuracy"]

    with Image.open(folder / "accuracy.png") as figure:
        assert min(figure.size) > 500
    with Image.open(folder / "kept.png") as picture:
        assert picture.width > NAMES + 16 * CELL
        assert picture.height > (len(names) + 1) * CELL


def test_what_is_there_stays(capfd: pytest.CaptureFixture[str]) -> None:
    Path("out").mkdir()
    Path("out/mine.txt").write_text("mine")
    given = ["demo", "--steps", "1", "--videos", "2", "--out", "out"]
    assert main(given) == 2
    assert main([*given, "--overwrite"]) == 2
    assert "mine.txt" in capfd.readouterr().err
    assert [path.name for path in Path("out").iterdir()] == ["mine.txt"]
    Path("out/mine.txt").unlink()
    assert main(given) == 0
    before = Path("out/results.json").read_text()
    assert main(given) == 2
    assert Path("out/results.json").read_text() == before
    assert main([*given, "--overwrite", "--seed", "1"]) == 0
    assert json.loads(Path("out/results.json").read_text())["seed"] == 1


@pytest.mark.parametrize(("option", "value"), [("--steps", "0"), ("--videos", "1"), ("--seed", "-1")])
def test_what_is_refused(option: str, value: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", option, value]) == 2
    assert option in capfd.readouterr().err
    assert not list(Path().iterdir())


def test_a_reader_from_scratch_has_to_go_somewhere_new(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    there = tmp_path / "there.safetensors"
    there.touch()
    for arguments in ([], ["--reader", str(there)]):
        assert main(["demo", "--out", str(tmp_path / "out"), "--from-scratch", *arguments]) == 2
        assert "--reader must name a file that is not there yet" in capfd.readouterr().err


def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    found = module.find_spec
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == "matplotlib" else found(name))
    assert main(["demo"]) == 2
    assert "the demo needs matplotlib: install score-video[train,plots]" in capfd.readouterr().err
    assert not list(Path().iterdir())


def test_pictures_of_anything(tmp_path: Path) -> None:
    draw_accuracy(tmp_path / "a.png", (0.1, 0.5), {"policy": [0.5, 0.5], "a": [0.5, 0.5]}, 0.5, "policy", "plain", 1)
    draw_accuracy(tmp_path / "b.png", (0.1, 0.5), {"policy": [0.0, 1.0]}, 1.0, "policy", "plain", 1)
    everything, nothing = torch.ones(2, 8, 8, dtype=torch.bool), torch.zeros(2, 8, 8, dtype=torch.bool)
    pixels = torch.rand(2, 3, 24, 24)
    draw_kept(tmp_path / "kept.png", pixels, [Shown("all", everything, 1, 2), Shown("none", nothing, 0, 2)], "title")
    with Image.open(tmp_path / "kept.png") as picture:
        # a pixel in the middle of the last patch of the last frame: as it is, as it is, dimmed
        x = NAMES + 2 * (CELL + 4) - 4 - 2
        rows = [56 + number * (CELL + 10) + CELL - 3 for number in range(3)]
        shown = [picture.getpixel((x, y)) for y in rows]
    assert shown[0] == tuple((pixels[1, :, -1, -1] * 255).round().int().tolist())
    assert shown[0] == shown[1]
    assert sum(shown[2]) < sum(shown[0])  # type: ignore[arg-type]
    missed = nothing.clone()
    missed[1, 7, 7] = True
    draw_kept(tmp_path / "missed.png", pixels, [Shown("none", nothing, 0, 2, missed, "1 of 2 missed")], "title")
    with Image.open(tmp_path / "kept.png") as plain, Image.open(tmp_path / "missed.png") as picture:
        size = CELL // 8
        corner = NAMES + 2 * (CELL + 4) - 4 - size, 56 + CELL + 10 + CELL - size  # the upper left one of that patch
        assert picture.getpixel(corner) == RULE_COLOURS[1]
        assert plain.getpixel((corner[0], corner[1] + CELL + 10)) != RULE_COLOURS[1]


@given(st.dictionaries(st.text(min_size=1), st.floats(-100, 100), min_size=1, max_size=15), st.floats(0.1, 10))
def test_names_do_not_overlap(wanted: dict[str, float], distance: float) -> None:
    heights = dict(zip(wanted, spread_labels(list(wanted.values()), distance), strict=True))
    order = sorted(wanted, key=lambda name: wanted[name])
    between = [heights[b] - heights[a] for a, b in pairwise(order)]
    assert all(gap >= distance * (1 - 1e-6) - 1e-9 for gap in between)
    # as a whole they stay where they want to be, and what has room does not move
    assert math.isclose(sum(heights.values()), sum(wanted.values()), abs_tol=1e-6)
    lonely = [n for n in wanted if all(abs(wanted[n] - w) > 16 * distance for m, w in wanted.items() if m != n)]
    assert all(math.isclose(heights[name], wanted[name], abs_tol=1e-9) for name in lonely)
