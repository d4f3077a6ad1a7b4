"""bench.partial_tower: what it compares is what it says, and the table is of that."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.masked_vit import masked_tokens
from helpers.videos import write_video

from bench.partial_tower import __main__ as command
from bench.partial_tower import vit
from bench.partial_tower.rows import WHOLE, Row
from score_video.errors import ScoreError
from score_video.testing import save_tiny_model


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8)
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", list(noise))


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": 8}
    folder = tmp_path_factory.mktemp("models") / "dinov2"
    Dinov2Model(Dinov2Config(**sizes, image_size=64)).save_pretrained(folder)
    return folder


def run(*options: object) -> dict[str, Any]:
    settings: dict[str, Any] = {"kept": "0.3,0.1", "halos": "0,1", "method": "random", "frames": 8, "videos": 100}
    settings |= {"data": None, "video": None, "size": 64, "device": None, "dtype": "auto"}
    settings |= dict(zip(options[::2], options[1::2], strict=True))  # type: ignore[arg-type]
    command.main(**settings)
    found: dict[str, Any] = json.loads(settings["out"].read_text())
    return found


def test_patches_of_a_vit(dinov2: Path, clip: Path) -> None:
    """All of them: what the model makes of them. Some: what it makes if the others are masked out of each layer."""
    tower = vit.tower_of(str(dinov2), 64)
    pixels = vit.pixels_of(tower, clip, 4)
    whole = tower.model(pixel_values=pixels).last_hidden_state[:, 1:].flatten(0, 1)
    torch.testing.assert_close(vit.partial_tokens(tower, pixels, torch.arange(256)), whole)
    index = (torch.rand(256, generator=torch.Generator().manual_seed(0)) < 0.3).nonzero()[:, 0]
    masked = masked_tokens(tower.model, pixels, torch.zeros(256, dtype=torch.bool).index_fill_(0, index, True))[index]
    torch.testing.assert_close(vit.partial_tokens(tower, pixels, index), masked, rtol=1e-4, atol=1e-5)
    assert (masked - whole[index]).abs().max() > 0.01


def test_a_vits_table(dinov2: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = run("model", str(dinov2), "video", [clip], "out", tmp_path / "out.json")
    rows = {(row["kept"], row["how"]): row for row in report["rows"]}
    assert list(rows) == [(share, how) for share in (0.3, 0.1) for how in (WHOLE, "alone", "halo 1")]
    for share in (0.3, 0.1):
        assert rows[share, WHOLE]["cosine"] == rows[share, WHOLE]["encoded"] == 1
        assert rows[share, "alone"]["encoded"] == pytest.approx(share, abs=0.01)
        assert share < rows[share, "halo 1"]["encoded"] < 1
        assert rows[share, "alone"]["cosine"] < 1
    said = capsys.readouterr().out
    assert "halo 1" in said and f"{rows[0.1, 'alone']['cosine']:.3f}" in said


@pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision: make test has it")
def test_a_models_table(clip: Path, tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model", "qwen3_vl", tokens_per_frame=12)
    asked = {"video": str(clip), "id": "clip", "question": "A or B?", "answer": "A", "options": ["A", "B"]}
    (tmp_path / "data.jsonl").write_text(json.dumps(asked))
    report = run(
        "model",
        str(tmp_path / "model"),
        "data",
        str(tmp_path / "data.jsonl"),
        "out",
        tmp_path / "out.json",
        "device",
        "cpu",
    )
    rows = {(row["kept"], row["how"]): row for row in report["rows"]}
    assert (1.0, WHOLE) in rows and len(rows) == 7
    for share in (0.3, 0.1):
        assert rows[share, "alone"]["questions"] == 1 and rows[share, WHOLE]["difference"] == 0
        # of the same places, by the whole tower and by a part of it
        assert rows[share, "alone"]["log_prob"] != rows[share, WHOLE]["log_prob"]
        assert rows[share, "alone"]["cosine"] < 1


def test_differences_are_paired_by_video() -> None:
    whole = Row(0.3, WHOLE, [1.0] * 3, [2.0, 4.0, 6.0], [1.0] * 3, [1, 1, 2], [1, 0, 2], [-0.1, -2.0, -0.4])
    part = Row(0.3, "alone", [0.3] * 3, [1.0, 2.0, 3.0], [0.9, 0.8, 0.7], [1, 1, 2], [0, 0, 2], [-1.0, -2.0, -0.6])
    found = part.numbers(whole)
    assert (found["speed_up"], found["milliseconds"], found["questions"]) == (2.0, 2000.0, 4)
    assert (found["accuracy"], found["difference"]) == (0.5, -0.25)
    assert found["cosine"] == pytest.approx(0.8) and found["log_prob"] == pytest.approx(-0.9)
    # differences -1, 0, 0 of 1, 1, 2 questions: residuals -0.75, 0.25, 0.5
    assert found["difference_error"] == pytest.approx((0.75**2 + 0.25**2 + 0.5**2) ** 0.5 / 4 * 1.5**0.5)


@pytest.mark.parametrize(
    ("options", "says"),
    [(("video", None), "give --data or --video"), (("data", "a", "video", None), "--data is for a video MLLM")],
)
def test_what_is_refused(options: tuple[object, ...], says: str, dinov2: Path, tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match=says):
        run("model", str(dinov2), "out", tmp_path / "out.json", *options)
