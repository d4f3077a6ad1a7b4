"""The composite world behind a choice before the tower: what the tower made of what it saw, and training on that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from score_video import Compressor
from score_video.before_tower import Gate
from score_video.composite.environment import CompositeEnvironment, CompositeVideos
from score_video.composite.evaluate import choose_by, evaluate
from score_video.composite.features import kept_gate, load_features, make_features, tower_of
from score_video.composite.reader import Reader, ReaderConfig
from score_video.composite.world import TOKENS
from score_video.errors import ScoreError
from score_video.packed import PackedVideos, Selection
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.rl import ScoreConfig, ScoreTrainer
from score_video.video.tower import VisionTower

GATE, OPEN = "random-0.3-halo-1", "random-1.0-halo-0"
Tower = Callable[..., VisionTower]


@pytest.fixture(scope="module")
def gated(media: Path, features: Path, tiny_tower: Tower) -> Path:
    """The folder of the whole tower's features, in which there are those behind two gates too."""
    for name, retention, halo in ((GATE, 0.3, 1), (OPEN, 1.0, 0)):
        gate = Gate(Compressor("random", retention), halo, "random")
        make_features(media, tiny_tower(), features / name, "validation", range(20), gate)
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
    everything = load_features(gated / OPEN, "validation", range(20))
    torch.testing.assert_close(everything.tokens, whole.tokens, rtol=0.01, atol=0.01)


def test_only_what_was_seen_is_kept(gated: Path) -> None:
    world = environment(gated, GATE)
    for batch in world.batches():
        assert batch.seen is not None
        choose = choose_by(Compressor("divprune"))
        kept = choose(batch, torch.full((20,), 65, dtype=torch.int32))
        assert len(kept) == 20 * 65 and set(kept.tolist()) <= set(batch.seen.kept.index.tolist())
    open_, whole = environment(gated, OPEN), environment(gated, None)
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
    assert compressor.gate.identity() == kept_gate(gated / GATE).identity()
    world = environment(gated, GATE)
    assert evaluate(world, list(world.batches()), choose_by(compressor), 0.05).kept == 20 * int(TOKENS * 0.05)


def test_features_of_several_gates_do_not_mix(gated: Path, media: Path, tiny_tower: Tower) -> None:
    for halo, retention in ((1, 0.4), (2, 0.3)):
        other = Gate(Compressor("random", retention), halo, "random")
        with pytest.raises(ScoreError, match="has features behind another gate: write to another folder"):
            make_features(media, tiny_tower(), gated / GATE, "validation", range(20), other)
    rule = Gate(Rule(), 0, "Rule")
    with pytest.raises(ScoreError, match="must be a policy or a named rule for features to be kept, got R"):
        make_features(media, tiny_tower(), gated / "rule", "validation", range(20), rule)


class Rule:
    """Keeps the first half of each video."""

    def select(self, videos: PackedVideos, question: Tensor | None = None, keep: object = None) -> Selection:
        counts = videos.lengths // 2
        rows = [torch.arange(n) + start for start, n in zip(videos.cu_seqlens.tolist(), counts.tolist(), strict=False)]
        return Selection(torch.cat(rows), counts.int())


def test_a_policy_on_pixels_sees_thumbnails_and_the_reader_features(gated: Path) -> None:
    torch.manual_seed(0)
    reader = Reader(ReaderConfig(16, tower_of(gated, "reader"), width=24, layers=2, heads=2))
    pixels = CompositeEnvironment(reader, gated, "validation", 20, pixels=True)
    whole = CompositeEnvironment(reader, gated, "validation", 20)
    assert pixels.token_width == 12
    batch, other = pixels.batch(torch.tensor([3, 1])), whole.batch(torch.tensor([3, 1]))
    assert pixels.features.thumbnails is not None
    expected = pixels.features.thumbnails[[3, 1]].flatten(0, 1).float()
    assert torch.equal(batch.videos.tokens, expected) and abs(float(expected.mean())) < 0.01
    torch.testing.assert_close(pixels.full_log_probabilities(batch), whole.full_log_probabilities(other))
    with pytest.raises(ScoreError, match=r"pixels must be False for the features in .*no gate's successor"):
        CompositeEnvironment(reader, gated, "validation", 20, GATE, pixels=True)
