"""Policies before a real tower: each sample is answered from what the tower makes of it and its halo alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from helpers.masked_vit import masked_tokens
from torch import Tensor

from score_video.composite.environment import CompositeEnvironment, CompositeVideos
from score_video.composite.evaluate import choose_by, evaluate
from score_video.composite.features import fitted, tower_of
from score_video.composite.pixels import CompositePixelEnvironment
from score_video.composite.reader import Reader, ReaderConfig
from score_video.composite.scenery import FRAMES
from score_video.composite.world import COLUMNS, TOKENS, TOKENS_PER_FRAME, make_video
from score_video.errors import ScoreError
from score_video.packed import Selection
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.rl import ScoreConfig, ScoreTrainer
from score_video.video.tower import VisionTower

Tower = Callable[..., VisionTower]


def whole(folder: Path) -> CompositeEnvironment:
    """Behind the tower, which has seen everything."""
    torch.manual_seed(0)
    reader = Reader(ReaderConfig(16, tower_of(folder, "reader"), width=24, layers=2, heads=2))
    return CompositeEnvironment(reader, folder, "validation", 20)


def in_front(folder: Path, media: Path, tower: VisionTower, halo: int) -> CompositePixelEnvironment:
    reader = whole(folder).reader
    return CompositePixelEnvironment(reader, folder, "validation", media, tower, 20, halo)


@pytest.fixture
def before(features: Path, media: Path, tiny_tower: Tower) -> CompositePixelEnvironment:
    return in_front(features, media, tiny_tower(), 1)


@pytest.mark.parametrize("halo", [0, 1, 2])
def test_a_sample_is_read_as_the_tower_makes_it_with_all_else_masked_out(
    halo: int, features: Path, media: Path, tiny_tower: Tower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples of several lengths, one of them of nothing, of two videos."""
    tower = fitted(tiny_tower())
    front, numbers = in_front(features, media, tower, halo), torch.tensor([2, 7])
    batch = front.batch(numbers)
    generator = torch.Generator().manual_seed(0)
    counts = torch.tensor([[90, 1], [0, 33]], dtype=torch.int32)
    chosen = [
        [torch.randperm(TOKENS, generator=generator)[:count].sort().values for count in sample]
        for sample in counts.tolist()
    ]
    read: list[Tensor] = []
    own = Reader.read
    monkeypatch.setattr(Reader, "read", lambda reader, tokens, *rest: read.append(tokens) or own(reader, tokens, *rest))
    index = torch.cat([places + video * TOKENS for sample in chosen for video, places in enumerate(sample)])
    front.log_probabilities(batch, Selection(index, counts))
    (tokens,) = read
    with torch.no_grad():
        for row, (sample, video) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            places = chosen[sample][video]
            seen = torch.zeros(FRAMES * TOKENS_PER_FRAME, dtype=torch.bool)
            for place in places.tolist():
                frame, y, x = place // TOKENS_PER_FRAME, place % TOKENS_PER_FRAME // COLUMNS, place % COLUMNS
                for dy in range(-halo, halo + 1):
                    for dx in range(-halo + abs(dy), halo - abs(dy) + 1):
                        if 0 <= y + dy < COLUMNS and 0 <= x + dx < COLUMNS:
                            seen[frame * TOKENS_PER_FRAME + (y + dy) * COLUMNS + x + dx] = True
            pixels = tower.pixels(make_video(media, "validation", int(numbers[video])).pixels)
            expected = masked_tokens(tower.model, pixels, seen)[places]
            torch.testing.assert_close(tokens[row, : len(places)], expected)
            assert (tokens[row, len(places) :] == 0).all()


def test_all_tokens_before_the_tower_are_those_of_the_whole(features: Path, before: CompositePixelEnvironment) -> None:
    behind, numbers = whole(features), torch.tensor([4])
    read = before.full_log_probabilities(before.batch(numbers))
    expected = behind.full_log_probabilities(behind.batch(numbers))
    torch.testing.assert_close(read, expected, atol=2e-3, rtol=1e-2)  # kept as float16


def test_features_of_other_videos_are_noticed(
    media: Path, before: CompositePixelEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = partial(make_video, media, "validation", 5)
    monkeypatch.setattr("score_video.composite.pixels.make_video", lambda *asked: other())
    with pytest.raises(ScoreError, match=r"features must be of the videos that are made here, but validation 4 in "):
        before.batch(torch.tensor([4]))


def test_a_policy_trains_before_the_tower(before: CompositePixelEnvironment, tmp_path: Path) -> None:
    torch.manual_seed(0)
    policy = SurprisePolicy(SurprisePolicyConfig(token_width=before.token_width))
    old = [parameter.clone() for parameter in policy.parameters()]
    config = ScoreConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, num_generations=2, retention=0.02,
        use_cpu=True, report_to=[], disable_tqdm=True,
    )  # fmt: skip
    trainer = ScoreTrainer(policy, before, config, CompositeVideos(20))
    trainer.train()
    assert any(not torch.equal(was, now) for was, now in zip(old, policy.parameters(), strict=True))
    reached = before.of_partition("reader", 20)
    assert reached._halo == before._halo == 1
    assert evaluate(reached, [reached.batch(torch.tensor([0]))], choose_by(trainer.compressor()), 0.02).kept == 25


def test_another_tower_or_halo_is_refused(features: Path, media: Path, tiny_tower: Tower) -> None:
    reader = whole(features).reader
    with pytest.raises(ScoreError, match="tower must be the reader's, "):
        CompositePixelEnvironment(reader, features, "validation", media, tiny_tower(1), 20)
    with pytest.raises(ScoreError, match="halo must be 0 or more, got -1"):
        CompositePixelEnvironment(reader, features, "validation", media, tiny_tower(), 20, halo=-1)
