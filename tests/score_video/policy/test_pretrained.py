"""The policy that comes with the package: it is there, it has learned something, and it needs no tower of its own."""

from __future__ import annotations

import pytest
import torch

from score_video.miniature.environment import MiniatureEnvironment
from score_video.miniature.evaluate import choose_by_method, choose_by_policy, encode_split, evaluate
from score_video.packed import PackedVideos
from score_video.policy import pretrained_policy


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
