"""Vision towers of the miniature on a part of their patches, and policies that choose in front of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.given import given_gate
from helpers.readers import tiny_reader
from rich.progress import Progress
from torch.testing import assert_close

from score_video import Compressor
from score_video.before_tower import Gate, widened
from score_video.errors import ScoreError
from score_video.miniature import train_reader
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.miniature.reader import Reader, ReaderConfig
from score_video.rl.environment import Selection

VIT: dict[str, Any] = {"tower_attends": True, "tower_depth": 2, "tower_width": 32}
EXAMPLES = [
    MiniatureVideos("lookalike", "test", 1, 9)[4],
    MiniatureVideos("long", "test", 1, 9)[2],
    MiniatureVideos("plain", "test", 1, 9)[1],
]


@pytest.mark.parametrize("patch", [3, 4, 6])
def test_a_vit_sees_what_is_there_alone(patch: int) -> None:
    """The same as running it on these patches and no others, frame by frame."""
    tower = tiny_reader(patch=patch, **VIT).tower
    generator = torch.Generator().manual_seed(patch)
    pixels = torch.rand(2, 3, 3, 24, 24, generator=generator)
    seen = torch.rand(2, 3, (24 // patch) ** 2, generator=generator) < 0.4
    seen[0, 1], seen[1, 2] = False, True
    tokens = tower(pixels, seen)
    assert tokens.isfinite().all()
    side = 24 // patch
    for video in range(2):
        for frame in range(3):
            there = seen[video, frame].nonzero()[:, 0]
            rows = pixels[video, frame].unfold(1, patch, patch).unfold(2, patch, patch)  # [3, side, side, patch, patch]
            patches = [rows[:, n // side, n % side] for n in there.tolist()]
            if not patches:
                continue
            flat = torch.stack(patches).flatten(1)
            hidden = (tower.embed((flat - 0.4) * 2) + tower.place[there])[None]
            for block in tower.blocks:
                hidden, _ = block(hidden, hidden[:, :0], None)
            assert_close(tokens[video, frame, there], tower.out(hidden)[0], atol=1e-5, rtol=1e-5)
    whole = tower(pixels)
    assert_close(tower(pixels, torch.ones_like(seen)), whole, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(tokens[seen], whole[seen], atol=1e-3)


def test_convolutions_see_as_much_wherever_else_they_run() -> None:
    tower, pixels = tiny_reader().tower, torch.rand(1, 2, 3, 24, 24)
    assert torch.equal(tower(pixels), tower(pixels, torch.rand(1, 2, 36) < 0.5))


@pytest.mark.parametrize("halo", [0, 1])
@pytest.mark.parametrize("sizes", [VIT, {}])
def test_a_sample_is_what_a_gate_that_chose_it_would_give(
    sizes: dict[str, Any], halo: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On videos of two lengths, and samples of several sizes, one of them empty."""
    monkeypatch.setattr("score_video.miniature.environment._SAMPLES_AT_ONCE", 2)
    reader = tiny_reader(**sizes)
    environment = MiniatureEnvironment(reader, pixels=True, halo=halo)
    batch = environment.encode(EXAMPLES)
    assert batch.seen is None and batch.videos.tokens.shape[1] == environment.token_width == 12
    starts, lengths = batch.videos.cu_seqlens.tolist(), batch.videos.lengths.tolist()
    generator = torch.Generator().manual_seed(0)
    keep = [[20, 90, 7], [30, 0, 36], [1, 50, 200]]
    chosen = [
        [torch.randperm(lengths[b], generator=generator)[:count].sort().values for b, count in enumerate(sample)]
        for sample in keep
    ]
    index = torch.cat([places + starts[b] for sample in chosen for b, places in enumerate(sample)])
    log_p = environment.log_probabilities(batch, Selection(index, torch.tensor(keep, dtype=torch.int32)))
    of_whole_tower = 0
    for g, sample in enumerate(chosen):
        for b, places in enumerate(sample):
            if not len(places):
                continue
            gated = MiniatureEnvironment(reader, gate=given_gate(places.tolist(), halo))
            one = gated.encode([EXAMPLES[b]])
            assert_close(log_p[g, b].exp(), gated.full_log_probabilities(one)[0].exp(), atol=1e-5, rtol=1e-5)
            whole = MiniatureEnvironment(reader)
            on_whole = whole.encode([EXAMPLES[b]])
            kept = Selection(places, torch.tensor([[len(places)]], dtype=torch.int32))
            same = torch.allclose(whole.log_probabilities(on_whole, kept)[0, 0].exp(), log_p[g, b].exp(), atol=1e-5)
            of_whole_tower += same
    assert of_whole_tower == (0 if sizes else 8)


def test_all_tokens_are_the_whole_tower() -> None:
    reader = tiny_reader(**VIT)
    pixels, whole = MiniatureEnvironment(reader, pixels=True), MiniatureEnvironment(reader)
    answers = [environment.full_log_probabilities(environment.encode(EXAMPLES)) for environment in (pixels, whole)]
    assert_close(answers[0].exp(), answers[1].exp(), atol=1e-5, rtol=1e-5)


def test_a_halo_without_end_is_whole_frames() -> None:
    frames = torch.zeros(2, 4, 6, dtype=torch.bool)
    frames[1, 2, 3] = True
    assert widened(frames, 8)[1].all() and not widened(frames, 8)[0].any()


def test_what_does_not_go_together() -> None:
    gate = Gate(Compressor("norm", 0.5), 0, "norm")
    with pytest.raises(ScoreError, match=r"pixels must be false with before_tower \(norm\)"):
        MiniatureEnvironment(tiny_reader(), gate=gate, pixels=True)
    with pytest.raises(ScoreError, match="halo must be 0 without pixels, got 1"):
        MiniatureEnvironment(tiny_reader(), halo=1)
    with pytest.raises(ScoreError, match="halo must be 0 without pixels, got 1"):
        MiniatureEnvironment(tiny_reader(), gate=gate, halo=1)  # a gate has its own
    with pytest.raises(ScoreError, match="tower_width must be a multiple of 16 and tower_depth 1 or more"):
        tiny_reader(tower_attends=True, tower_width=24, tower_depth=1)


@pytest.mark.parametrize("drop_patches", [False, True])
def test_a_reader_with_a_vit_is_trained_and_saved(
    drop_patches: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few steps, of the tower too; with dropped patches other weights come out."""
    monkeypatch.setattr(train_reader, "TOWER_STEPS", 2)
    monkeypatch.setattr(train_reader, "STEPS", 4)
    config = ReaderConfig(tower_width=16, token_width=8, width=12, layers=1, heads=2, tower_attends=True, tower_depth=1)
    made = {}
    for kind in (False, drop_patches):
        with Progress(disable=True) as progress:
            made[kind] = train_reader.make_reader(config, 0, None, kind, progress)
    made[drop_patches].save(tmp_path / "reader.safetensors")
    loaded = Reader.load(tmp_path / "reader.safetensors")
    assert loaded.config == config
    weights = [made[kind].state_dict()["tower.embed.weight"] for kind in (False, drop_patches)]
    assert_close(loaded.state_dict()["tower.embed.weight"], weights[1], atol=1e-3, rtol=1e-2)
    assert torch.equal(*weights) is not drop_patches
