"""The composite world behind a choice before the tower: what the tower made of what it saw, and training on that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from score_video import Compressor
from score_video.before_tower import Gate
from score_video.composite.environment import CompositeEnvironment, CompositeVideos
from score_video.composite.evaluate import choose_by, evaluate
from score_video.composite.features import gate_name, gate_of_name, load_features, make_features, tower_of
from score_video.composite.reader import Reader, ReaderConfig
from score_video.composite.world import TOKENS
from score_video.errors import ScoreError
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.rl import ScoreConfig, ScoreTrainer
from score_video.video.tower import VisionTower

GATE = "random-0.3-halo-1"
Tower = Callable[..., VisionTower]


@pytest.fixture(scope="module")
def gated(media: Path, features: Path, tiny_tower: Tower) -> Path:
    """The folder of the whole tower's features, in which there are those behind two gates too."""
    for name in (GATE, "random-1.0-halo-0"):
        make_features(media, tiny_tower(), features, "validation", range(20), gate_of_name(name))
    return features


def environment(folder: Path, gate: str | None) -> CompositeEnvironment:
    torch.manual_seed(0)
    reader = Reader(ReaderConfig(16, tower_of(folder, "reader"), width=24, layers=2, heads=2))
    return CompositeEnvironment(reader, folder, "validation", 20, gate)


def test_features_of_what_was_seen(gated: Path) -> None:
    whole = load_features(gated, "validation", range(20))
    part = load_features(gated / GATE, "validation", range(20))
    assert whole.kept is None and part.kept is not None and part.encoded is not None
    assert part.kept.sum(1).tolist() == [int(TOKENS * 0.3)] * 20
    assert bool((part.encoded | ~part.kept).all()) and part.encoded.sum() > 1.5 * part.kept.sum()
    assert torch.equal(part.answers, whole.answers)
    # near the whole tower's, and not them; a layer of random weights hardly mixes patches
    torch.testing.assert_close(part.tokens[part.kept], whole.tokens[part.kept], rtol=0.1, atol=0.1)
    assert not torch.equal(part.tokens[part.kept], whole.tokens[part.kept])
    everything = load_features(gated / "random-1.0-halo-0", "validation", range(20))
    torch.testing.assert_close(everything.tokens, whole.tokens, rtol=0.01, atol=0.01)


def test_only_what_was_seen_is_kept(gated: Path) -> None:
    world = environment(gated, GATE)
    for batch in world.batches():
        assert batch.seen is not None
        choose = choose_by(Compressor("divprune"))
        kept = choose(batch, torch.full((20,), 65, dtype=torch.int32))
        assert len(kept) == 20 * 65 and set(kept.tolist()) <= set(batch.seen.kept.index.tolist())
    open_, whole = environment(gated, "random-1.0-halo-0"), environment(gated, None)
    results = [evaluate(one, list(one.batches()), choose_by(Compressor("divprune")), 0.05) for one in (open_, whole)]
    assert results[0].answers.accuracy == pytest.approx(results[1].answers.accuracy, abs=0.05)


def test_a_policy_trains_behind_it(gated: Path, tmp_path: Path) -> None:
    config = ScoreConfig(
        output_dir=str(tmp_path), max_steps=1, per_device_train_batch_size=2, retention=0.05, use_cpu=True,
        report_to=[], disable_tqdm=True,
    )  # fmt: skip
    policy = SurprisePolicy(SurprisePolicyConfig(state="relative"))
    trainer = ScoreTrainer(policy, environment(gated, GATE), config, CompositeVideos(20))
    trainer.train()
    compressor = trainer.compressor()
    assert policy.config.behind_gate and compressor.gate is not None
    assert gate_name(compressor.gate) == GATE
    world = environment(gated, GATE)
    assert evaluate(world, list(world.batches()), choose_by(compressor), 0.05).kept == 20 * int(TOKENS * 0.05)


def test_what_is_no_gate_of_features() -> None:
    with pytest.raises(ScoreError, match=r"gate must be like evs-dithered-0\.3-halo-1, got 'surprise'"):
        gate_of_name("surprise")
    policy = Compressor(SurprisePolicy(SurprisePolicyConfig(state="relative")), 0.3)
    with pytest.raises(ScoreError, match="before_tower must be a named rule for features to be kept"):
        gate_name(Gate(policy, 0, "SurprisePolicy"))
