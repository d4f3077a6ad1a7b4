"""The policies that come with the package: they are there, have learned something, and need no tower of their own."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch

from score_video import Compressor
from score_video.before_tower import Gate
from score_video.errors import ScoreWarning
from score_video.miniature.environment import MiniatureEnvironment
from score_video.miniature.evaluate import choose_by, choose_by_method, choose_by_policy, encode_split, evaluate
from score_video.packed import PackedVideos
from score_video.policy import SurprisePolicy, pretrained_policy

READERS = Path(__file__).parents[3] / "evaluation" / "readers"


def test_it_takes_any_tokens_of_any_scale() -> None:
    policy = pretrained_policy()
    assert policy.config.question_width == 0
    tokens = torch.randn(6, 5, 7, 33)
    logits = policy(PackedVideos.from_frames([tokens]))
    assert logits.isfinite().all()
    assert logits.std() > 0.1
    torch.testing.assert_close(policy(PackedVideos.from_frames([50 * tokens])), logits, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("split", ["lookalike", "plain"])
def test_it_beats_the_best_linear_rule(split: str) -> None:
    """At 5%, on videos that nothing was trained on; docs/results.md has 576 of them and other towers."""
    environment = MiniatureEnvironment()
    batches = encode_split(environment, split, "test", 11, 128)
    learned = evaluate(environment, batches, choose_by_policy(pretrained_policy()), 0.05)
    rule = evaluate(environment, batches, choose_by_method("evs-capped"), 0.05)
    assert learned.mean > rule.mean + 0.02


def test_behind_a_gate_there_is_another_one() -> None:
    """It looks at what the tower has seen, and stands there by default."""
    policy = pretrained_policy(behind_gate=True)
    assert policy.config.behind_gate and policy.config.use_seen
    before = Compressor("evs-dithered", 0.3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ScoreWarning)
        made = [
            Compressor(retention=0.05, before_tower=before),
            Compressor("pretrained", 0.05, before_tower=before),
            Compressor.from_pretrained("pretrained", retention=0.05, before_tower=before),
        ]
    for one in made:
        assert isinstance(one.method, SurprisePolicy)
        assert one.method.config == policy.config
        assert all(torch.equal(own, policy.state_dict()[name]) for name, own in one.method.state_dict().items())
    assert isinstance(plain := Compressor("pretrained").method, SurprisePolicy) and not plain.config.behind_gate


def test_behind_a_gate_it_beats_the_best_linear_rule() -> None:
    """Where what the gate leaves has holes everywhere, on a split and a tower that it never saw."""
    environment = MiniatureEnvironment(
        READERS / "tower-2.safetensors", gate=Gate(Compressor("random", 0.3), name="random")
    )
    batches = encode_split(environment, "lookalike", "test", 11, 384)
    behind, rule = (
        evaluate(environment, batches, choose_by(Compressor(method)), 0.05).mean
        for method in (pretrained_policy(behind_gate=True), "evs-capped")
    )
    assert behind > rule + 0.02
