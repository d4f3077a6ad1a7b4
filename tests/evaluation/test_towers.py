"""The tables of real towers that nothing was trained on, on features made up here."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import typer
from helpers.made_up_features import TOWER, made_up, save_features
from torch import Tensor

from evaluation import towers
from score_video import Compressor
from score_video.composite.dropping import LIVE_PIXELS, SHOWN_PIXELS
from score_video.composite.environment import CompositeEnvironment
from score_video.composite.evaluate import evaluate, things_kept, things_missed
from score_video.composite.reader import Reader, ReaderConfig
from score_video.composite.world import FIRST_LANDMARK, FIRST_MARK, NOT_ASKED, SYMBOLS, TOKENS
from score_video.rl.environment import EncodedBatch, Selection


@pytest.fixture
def features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two towers; the reader that comes along is of the first."""
    torch.manual_seed(0)
    path = tmp_path / "reader.safetensors"
    Reader(ReaderConfig(6, TOWER, width=12, layers=1, heads=2)).save(path)
    monkeypatch.setattr(towers, "shipped_reader", lambda: path)
    for name, tower in (("one", TOWER), ("other", TOWER[::-1])):
        save_features(tmp_path / name, "test", made_up(), tower)
    return tmp_path


def cells_of(lines: list[str]) -> list[list[str]]:
    return [
        [cell.strip() for cell in line[1:-1].split("|")]
        for line in lines
        if line.startswith("| ") and "---" not in line
    ]


def test_the_tables(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Things kept, with what a choice costs; and answers where there is a reader."""
    Compressor("random", 0.1).save_pretrained(features / "mine")
    towers.main([features / "one", features / "other"], 20, ["divprune-whitened", str(features / "mine")])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines if line.startswith("## ")] == ["## one", "## other"]
    rows = cells_of(lines)
    assert [row[0] for row in rows] == ["", "divprune", "divprune-whitened", "mine", "oracle"] * 3
    for number, row in enumerate(rows):
        timed = number // 5 != 1
        assert len(row) == 1 + 2 * len(towers.RETENTIONS) + timed
        if row[0] == "divprune":
            assert row[6:11] == [""] * 5
        elif row[0]:
            assert all("±" in cell for cell in row[1:11])
        if timed and row[0] not in ("", "oracle"):
            assert float(row[11]) > 0


def test_long_videos(features: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Clip after clip, the tokens go where the compressor wants them, and each question is of one clip."""
    towers.main([features / "one"], 20, ["random"], clips=5)
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == f"## one, 6 wide, videos of 80 frames and {5 * TOKENS:,} tokens"
    assert [row[0] for row in cells_of(lines)] == ["", "divprune", "random", "oracle"] * 2
    with pytest.raises(typer.BadParameter, match="must divide the 20 videos, got 3"):
        towers.main([features / "one"], 20, ["random"], clips=3)

    environment = CompositeEnvironment(Reader.load(features / "reader.safetensors"), features / "one", "test", 20)
    keep = torch.full((20,), 13, dtype=torch.int32)

    def all_of_the_last(batch: EncodedBatch, keep: Tensor) -> Tensor:
        assert batch.videos.lengths.tolist() == [5 * TOKENS] * 4 and keep.tolist() == [65] * 4
        return torch.cat([torch.arange(int(end) - 65, int(end)) for end in batch.videos.cu_seqlens[1:]])

    choose = towers.joined(all_of_the_last, 5)
    batch = environment.batch(torch.arange(20))
    rows = choose(batch, keep)
    assert torch.equal(torch.bincount(batch.videos.video_of_token[rows]), torch.tensor([0, 0, 0, 0, 65] * 4))
    answers = evaluate(environment, [batch], choose, 13 / TOKENS).results
    for video in (3, 4):  # one that nothing is kept of, and one with all that is kept
        own = rows[rows // TOKENS == video]
        log_p = environment.log_probabilities(batch, Selection(own, torch.tensor([[0] * video + [len(own)]])))[0, -1]
        told = answers[video] != NOT_ASKED
        right = log_p.argmax(1) == environment.features.answers[video]
        assert torch.equal(answers[video][told] == 1, right[told])


def test_things_that_are_kept(features: Path) -> None:
    """Counted out for one choice: every fourth token; every other symbol lives."""
    environment = CompositeEnvironment(Reader.load(features / "reader.safetensors"), features / "one", "test", 20)
    environment.features.live.copy_(environment.features.shown[:, :, ::2].amax(2))

    def choose(batch: EncodedBatch, keep: Tensor) -> Tensor:
        return torch.arange(0, len(batch.videos.tokens), 4)

    found = things_kept(environment.batches(), choose, 0.25)
    own, batch = environment.features, environment.batch(torch.arange(20))
    missed = things_missed(batch, choose(batch, torch.empty(0))).view(20, TOKENS, -1)
    for video in range(20):
        for symbol in range(len(SYMBOLS)):
            lives = (own.live[video] >= LIVE_PIXELS) & bool((own.shown[video, :, symbol] <= own.live[video]).all())
            always = FIRST_LANDMARK <= symbol < FIRST_MARK
            rows = ((own.shown[video, :, symbol] >= SHOWN_PIXELS) & (lives | always)).nonzero()[:, 0].tolist()
            assert bool(found.asked[video, symbol]) == bool(rows)
            assert bool(found.right[0, video, symbol]) == any(row % 4 == 0 for row in rows)
            assert missed[video, :, symbol].nonzero()[:, 0].tolist() == ([] if found.right[0, video, symbol] else rows)
