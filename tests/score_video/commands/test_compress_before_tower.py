"""``score compress --tower`` with a choice before the tower."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.towers import save_other_tower, save_tower
from safetensors.torch import load_file

from score_video import Compressor, ScoreError, read_frames
from score_video.cli import main
from score_video.commands.compress import CompressOptions, compress_video
from score_video.commands.frames import Frames
from score_video.commands.options import Chosen
from score_video.video.partial_tower import encode_seen
from score_video.video.patches import fit_to_patches
from score_video.video.tower import load_tower

GATE = ("--before-tower", "random:0.3", "--halo", "1", "--retention", "0.25")


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tower(tmp_path_factory.mktemp("towers") / "dinov2")


def compressed(out: Path, clip: Path, *options: str) -> dict[str, Any]:
    assert main(["compress", str(clip), "--frames", "8", "--size", "112", "--out", str(out), *options]) == 0
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def test_what_is_kept_is_what_the_tower_saw(tmp_path: Path, clip: Path, tower: Path, capsys: Any) -> None:
    """Bit for bit what select_seen keeps of encode_seen's output, and the features that it has."""
    summary = compressed(tmp_path, clip, "--tower", str(tower), "--method", "divprune", "--method", "norm", *GATE)
    compressor = Compressor("divprune", 0.25, before_tower=Compressor("random", 0.3), halo=1)
    assert compressor.gate is not None
    loaded = load_tower(str(tower))
    sampled = read_frames(clip, partial(fit_to_patches, patch=1, size=112), num_frames=8)
    tokens, seen = encode_seen(loaded, loaded.pixels(sampled.frames), compressor.gate)
    videos = loaded.encode(sampled.frames)  # of this only the grid
    packed = type(videos).from_frames([tokens.view(8, 4, 4, -1)])
    index = compressor.select_seen(packed, seen).index
    saved = load_file(tmp_path / "tokens.safetensors")
    assert torch.equal(saved["index"], index) and torch.equal(saved["tokens"], tokens[index])
    assert not torch.equal(saved["tokens"], videos.tokens[index])
    other = Compressor("norm", 0.25).select_seen(packed, seen).index
    assert torch.equal(saved["compared.1.index"], other)
    kept, encoded = len(seen.kept.index), len(seen.encoded)
    assert (len(index), kept) == (32, 38) and 38 < encoded < 128
    report = {"method": "random", "retention": 0.3, "halo": 1, "kept": kept, "encoded": encoded}
    assert summary["before_tower"] == report
    assert {"pixels", "gate", "tower"} <= set(summary["milliseconds"])
    said = capsys.readouterr().out
    assert f"the tower saw {encoded / 128:.2%} of its patches: 38 that were chosen, {encoded - 38} around them" in said


def test_a_gate_that_lets_everything_through(tmp_path: Path, clip: Path, tower: Path) -> None:
    basic = ("--tower", str(tower), "--method", "evs")
    compressed(tmp_path / "plain", clip, *basic)
    compressed(tmp_path / "gated", clip, *basic, "--before-tower", "random:1")
    plain, gated = (load_file(tmp_path / name / "tokens.safetensors") for name in ("plain", "gated"))
    assert torch.equal(plain["index"], gated["index"])
    torch.testing.assert_close(plain["tokens"], gated["tokens"])


def test_a_saved_compressor_with_a_gate_works(tmp_path: Path, clip: Path, tower: Path) -> None:
    saved = Compressor("norm", 0.25, before_tower=Compressor("random", 0.3), halo=1)
    saved.save_pretrained(tmp_path / "saved")
    basic = ("--tower", str(tower))
    of_folder = compressed(tmp_path / "folder", clip, *basic, "--policy", str(tmp_path / "saved"))
    by_options = compressed(tmp_path / "options", clip, *basic, "--method", "norm", *GATE)
    assert of_folder["before_tower"] == by_options["before_tower"] is not None
    folder, options = (load_file(tmp_path / name / "tokens.safetensors") for name in ("folder", "options"))
    assert torch.equal(folder["index"], options["index"]) and torch.equal(folder["tokens"], options["tokens"])
    plain = compressed(tmp_path / "plain", clip, *basic, "--method", "norm")
    assert plain["before_tower"] is None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--before-tower", "evs-dithered:0.5"], "before_tower needs a tower (--tower): without one"),
        (["--tower", "vit", "--before-tower", "norm:0.5"], "tower must be DINOv2 to be run in part, vit is 'vit'"),
        (["--tower", "dinov2", "--before-tower", "norm"], "--before-tower must be NAME:RETENTION"),
        (["--tower", "dinov2", "--halo", "1"], "halo must be 0 without before_tower, got 1"),
        (["--tower", "dinov2", "--before-tower", "evs:0.2"], "two frames' worth"),
        (["--tower", "dinov2", "--before-tower", "norm:0.5", "--method", "vidcom2"], "method must not be 'vidcom2'"),
        (["--tower", "dinov2", "--before-tower", "norm:0.05"], "before_tower.retention must be at least retention"),
        (["--policy", "saved"], "before_tower needs a tower (--tower): without one"),
    ],
)
def test_refusals(
    options: list[str],
    says: str,
    tmp_path: Path,
    clip: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_tower(tmp_path / "dinov2")
    save_other_tower(tmp_path / "vit")
    Compressor("norm", before_tower=Compressor("evs-dithered", 0.5)).save_pretrained(tmp_path / "saved")
    method = [] if "--method" in options or "--policy" in options else ["--method", "norm"]
    assert main(["compress", str(clip), "--frames", "8", "--out", "out", *method, *options]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_rules_beside_each_other_stand_behind_one_gate(tmp_path: Path, clip: Path, tower: Path) -> None:
    gated = Chosen(Compressor("norm", before_tower=Compressor("evs-dithered", 0.5)), "norm")
    options = CompressOptions(Frames(8), size=112, tower=str(tower))
    with pytest.raises(ScoreError, match="others must have the before_tower and the halo of the first, evs does not"):
        compress_video(clip, tmp_path / "out", gated, options, others=[Chosen(Compressor("evs"), "evs")])
