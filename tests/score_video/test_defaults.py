"""torch's default dtype and device are nothing to rules, policies, compressors, training and the miniature."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.defaults import DEFAULT_DTYPES, DEFAULTS, assert_same, assert_same_under, torch_default
from helpers.packs import random_frames, random_videos

from score_video.compressor import AdaptiveRetention, Compressor
from score_video.methods import METHODS
from score_video.miniature.dropping import drop
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.miniature.evaluate import oracle
from score_video.miniature.world import World, thing_counts
from score_video.packed import PackedVideos
from score_video.policy import SurprisePolicy, SurprisePolicyConfig, expected_count, pretrained_policy
from score_video.policy.change import change_features
from score_video.policy.position import position_features
from score_video.policy.relative import relative_state
from score_video.rl.advantages import ADVANTAGES, Rewards
from score_video.rl.environment import Selection
from score_video.rl.objective import policy_gradient_loss
from score_video.rl.pseudo_video import MOTIONS, pseudo_video
from score_video.rl.rewards import kept_ratio
from score_video.rl.sampling import SAMPLINGS
from score_video.video.patches import to_patches

default = pytest.mark.parametrize("default", DEFAULTS, ids=str)
default_dtype = pytest.mark.parametrize("default", DEFAULT_DTYPES, ids=str)
VIDEOS = random_videos(width=6)


@default
@pytest.mark.parametrize("name", METHODS)
def test_rule(name: str, default: torch.dtype | str) -> None:
    assert_same_under(default, lambda: Compressor(name, 0.3).select(VIDEOS))


@default
@pytest.mark.parametrize("function", [position_features, change_features, relative_state])
def test_features(function: Any, default: torch.dtype | str) -> None:
    assert_same_under(default, lambda: function(VIDEOS))


@default
def test_packing(default: torch.dtype | str) -> None:
    frames = [random_frames((3, 2, 4), 6), random_frames((0, 2, 2), 6), random_frames((2, 1, 3), 6)]
    assert_same_under(default, lambda: PackedVideos.from_frames(frames))


def policy(state: str, question_width: int = 0) -> SurprisePolicy:
    torch.manual_seed(0)
    config = SurprisePolicyConfig(token_width=6, state=state, question_width=question_width, hidden_sizes=[16, 8])
    return SurprisePolicy(config)


@default
@pytest.mark.parametrize("state", ["residual", "relative"])
@pytest.mark.parametrize("question_width", [0, 5])
def test_policy(state: str, question_width: int, default: torch.dtype | str) -> None:
    model = policy(state, question_width)
    question = torch.randn(VIDEOS.num_videos, 5) if question_width else None

    def run() -> Any:
        logits = model(VIDEOS, question)
        gradients = torch.autograd.grad(logits.square().sum(), list(model.parameters()))
        selected = Compressor(model, AdaptiveRetention(0.1, 0.5)).select(VIDEOS, question)
        return logits, gradients, expected_count(logits, VIDEOS), selected

    assert_same_under(default, run)


@default
def test_pretrained_policy(default: torch.dtype | str) -> None:
    def run() -> Any:
        made = pretrained_policy()
        assert made.dtype == torch.float32
        return made.state_dict(), made(VIDEOS), Compressor().select(VIDEOS)

    assert_same_under(default, run)


@default
@pytest.mark.parametrize("saved", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("state", ["residual", "relative"])
def test_saving_and_loading(state: str, saved: torch.dtype, default: torch.dtype | str, tmp_path: Path) -> None:
    """A policy keeps the dtype that it was saved in, whichever way it is loaded."""
    model = policy(state).to(saved)
    model.save_pretrained(tmp_path / "alone")
    Compressor(model, 0.2).save_pretrained(tmp_path / "compressor")
    expected = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch_default(default):
        loaded = (
            SurprisePolicy.from_pretrained(tmp_path / "alone"),
            Compressor.from_pretrained(tmp_path / "compressor").method,
        )
        Compressor(model, 0.2).save_pretrained(tmp_path / "again")
    for one in loaded:
        assert_same(dict(one.state_dict()), expected)
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "compressor" / name).read_bytes()


@default_dtype
def test_loading_by_transformers(default: torch.dtype, tmp_path: Path) -> None:
    model = policy("residual").to(torch.float16)
    model.save_pretrained(tmp_path)
    expected = {name: weight.clone() for name, weight in model.state_dict().items()}
    with torch_default(default):
        assert_same(dict(SurprisePolicy.from_pretrained(tmp_path).state_dict()), expected)


@default_dtype
def test_a_policy_made_under_a_default_has_it_as_every_module_does(default: torch.dtype) -> None:
    with torch_default(default):
        made = policy("relative")
        assert {parameter.dtype for parameter in made.parameters()} == {default}
        if default != torch.float64:
            assert made(VIDEOS).dtype == torch.float32


@default
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("advantage", ADVANTAGES)
@pytest.mark.parametrize("scale", [False, True])
def test_reinforcement(sampling: str, advantage: str, scale: bool, default: torch.dtype | str) -> None:
    if advantage == "by_factor" and sampling == "bernoulli":
        pytest.skip("refused")
    generator = torch.Generator().manual_seed(0)
    length, count = len(VIDEOS.tokens), VIDEOS.num_videos
    logits = torch.randn(length, generator=generator)
    keep = (VIDEOS.lengths // 2).int()
    seed = torch.arange(count)
    task, correct = torch.rand(2, 4, count, generator=generator)

    def run() -> Any:
        leaf = logits.clone().requires_grad_()
        rollout = SAMPLINGS[sampling].sample(leaf, VIDEOS, keep, 4, seed)
        log_prob = SAMPLINGS[sampling].log_prob(leaf, VIDEOS, rollout)
        rewards = Rewards(task, 1 - kept_ratio(rollout.selection, VIDEOS), correct, rollout.decisions)
        advantages = ADVANTAGES[advantage](rewards, 0.3, scale, SAMPLINGS[sampling].factors)
        old = {name: value.detach() - 0.1 for name, value in log_prob.items()}
        losses = [
            policy_gradient_loss(log_prob, old, advantages, epsilon, rollout.decisions) for epsilon in (None, 0.2)
        ]
        gradients = [torch.autograd.grad(loss, leaf, retain_graph=True) for loss, _ in losses]
        return rollout, log_prob, advantages, losses, gradients

    assert_same_under(default, run)


@default
@pytest.mark.parametrize("motion", MOTIONS)
def test_pseudo_video(motion: str, default: torch.dtype | str) -> None:
    image = torch.rand(9, 12, 3, generator=torch.Generator().manual_seed(0))
    assert_same_under(default, lambda: pseudo_video(image, 5, motion=motion, seed=3))


@pytest.fixture(scope="module")
def miniature() -> Iterator[MiniatureEnvironment]:
    yield MiniatureEnvironment()


@default
@pytest.mark.parametrize("split", ["plain", "static"])
def test_miniature(split: str, default: torch.dtype | str) -> None:
    examples = [MiniatureVideos(split, "test", 0, 3)[number] for number in range(3)]

    def run() -> Any:
        environment = MiniatureEnvironment()
        batch = environment.encode(examples)
        keep = (batch.videos.lengths // 4).int()
        kept = oracle(batch, keep)
        outcome = environment.answer(batch, Selection(kept, keep[None]), divergence=True)
        videos = World(split, "test").videos([0, 1])
        shown = thing_counts(videos.things, environment.reader.config.patch).flatten(1, -2)
        tokens = environment.encode_pixels(videos.pixels).flatten(1, 3)
        columns = environment.reader.config.columns
        dropped = drop(videos, shown, tokens, columns, 9, torch.Generator().manual_seed(0))
        return batch.videos, batch.payload.answers, kept, outcome, videos, dropped

    assert_same_under(default, run)


IMPORTED_LATER = """
import sys, torch
torch.set_default_dtype(torch.bfloat16)
torch.set_default_device("meta")
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.compressor import Compressor
batch = MiniatureEnvironment().encode([MiniatureVideos("plain", "test", 0, 1)[0]])
index = Compressor(retention=0.1).select(batch.videos).index
assert batch.videos.tokens.dtype == torch.float32
print(*index.tolist())
"""


def test_packages_imported_under_other_defaults() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTED_LATER], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    batch = MiniatureEnvironment().encode([MiniatureVideos("plain", "test", 0, 1)[0]])
    assert list(map(int, done.stdout.split())) == Compressor(retention=0.1).select(batch.videos).index.tolist()


@default
def test_frames_to_patches_to_tokens(default: torch.dtype | str) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 28, 42, 3), dtype=np.uint8)

    def run() -> Any:
        patches, (t, rows, columns) = to_patches(frames, 14)
        videos = PackedVideos.from_frames([patches.view(t, rows, columns, -1)])
        return patches, Compressor(retention=0.25).select(videos)

    assert_same_under(default, run)
