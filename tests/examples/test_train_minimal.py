"""The example runs, its policy learns from every part of what it does, and it is as short as it says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import score_ext
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.miniature.reader import Reader, ReaderConfig
from score_video.packed import PackedVideos

FILE = Path(__file__).resolve().parents[2] / "examples" / "train_minimal.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_minimal", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["train_minimal"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def environment() -> MiniatureEnvironment:
    torch.manual_seed(0)
    return MiniatureEnvironment(Reader(ReaderConfig(tower_width=8, token_width=8, width=12, layers=1, heads=2)))


def test_it_runs_and_prints_a_table(
    example: ModuleType, environment: MiniatureEnvironment, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = example.parse(["--steps", "3", "--videos", "4", "--batch", "2", "--split", "plain"])
    assert (settings.steps, settings.split, settings.learning_rate) == (3, "plain", 3e-3)
    example.main(environment, settings)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 3/3 ")
    table = [line.split() for line in lines[4:]]
    assert [row[0] for row in table] == ["tokens", "random", "surprise", "policy", "all"]
    assert all(0 <= float(value) <= 100 for row in table[1:4] for value in row[1:])


def test_every_parameter_learns(example: ModuleType, environment: MiniatureEnvironment) -> None:
    settings = example.Settings(steps=1, batch=4)
    torch.manual_seed(settings.seed)
    before = example.Policy(environment.token_width).state_dict()
    after = example.train(environment, settings).state_dict()
    # a constant added to all logits changes no draw of k tokens, so the last bias has no gradient but rounding
    assert all(not torch.equal(after[name], before[name]) for name in before if name != "network.4.bias")
    assert all(parameter.grad is None for parameter in environment.reader.parameters())


def test_more_of_what_is_rewarded(example: ModuleType, environment: MiniatureEnvironment) -> None:
    """In place of the reader, something that likes the second half of every video."""

    class Likes(MiniatureEnvironment):
        def answer(self, batch, selection, *, divergence=False):  # type: ignore[no-untyped-def]
            half = (selection.index % 576 >= 288).float().view(*selection.keep.shape, -1).mean(2)
            outcome = super().answer(batch, selection)
            return type(outcome)(half - 1, half)

    settings = example.Settings(steps=25, batch=4, retention=0.05)
    likes = Likes(environment.reader)
    policy = example.train(likes, settings)
    batch = environment.encode([MiniatureVideos("plain", "test", 0, 4)[number] for number in range(4)])
    index = example.by_policy(policy)(batch.videos, example.budgets(batch.videos, 0.1))
    assert (index % 576 >= 288).float().mean() > 0.9


def test_state_is_the_same_as_the_native_one(example: ModuleType) -> None:
    videos = PackedVideos.from_frames([torch.randn(3, 2, 4, 5), torch.randn(1, 3, 2, 5), torch.randn(4, 1, 2, 5)])
    state = example.state(videos)
    packed = (videos.tokens, videos.cu_seqlens, videos.tokens_per_frame)
    native = score_ext.policy_state(*packed, None, 0, len(state), torch.float32)
    assert torch.allclose(state[:, :10], native, atol=1e-5)
    assert state[:, 10:].min() >= -1 and state[:, 10:].max() <= 1
    assert len(state[:24, 10:].unique(dim=0)) == 24


def test_ways_of_choosing_keep_the_exact_count(example: ModuleType, environment: MiniatureEnvironment) -> None:
    batch = environment.encode([MiniatureVideos("plain", "test", 0, 2)[0], MiniatureVideos("long", "test", 0, 2)[1]])
    keep = example.budgets(batch.videos, 0.1)
    assert keep.tolist() == [57, 230]
    for choose in (example.at_random, example.by_surprise, example.by_policy(example.Policy(8))):
        index = choose(batch.videos, keep)
        assert (index.diff() > 0).all()
        assert batch.videos.video_of_token[index].bincount().tolist() == [57, 230]


def test_it_is_short() -> None:
    assert len(FILE.read_text().splitlines()) <= 300
