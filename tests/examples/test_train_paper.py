"""The paper's recipe in one file: it runs, and its pieces are those of the package."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from score_video.miniature.environment import MiniatureEnvironment
from score_video.miniature.reader import Reader, ReaderConfig
from score_video.packed import PackedVideos
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.rl.advantages import ADVANTAGES, Rewards
from score_video.rl.presets import PAPER_POLICY
from score_video.rl.rewards import COMBINATIONS

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    monkeypatch.delitem(sys.modules, "train_minimal", raising=False)
    monkeypatch.delitem(sys.modules, "train_paper", raising=False)
    import train_paper  # type: ignore[import-not-found]

    return train_paper  # type: ignore[no-any-return]


def test_it_runs_and_prints_a_table(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    environment = MiniatureEnvironment(Reader(ReaderConfig(tower_width=8, token_width=8, width=12, layers=1, heads=2)))
    settings = example.parse(["--steps", "2", "--videos", "4", "--batch", "2", "--split", "plain"])
    example.main(environment, settings, train=example.train, by_policy=example.by_topk)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("step 2/2 delta_ce ")
    assert [row.split()[0] for row in lines[4:]] == ["tokens", "random", "surprise", "policy", "all"]


def test_its_policy_is_the_presets(example: ModuleType) -> None:
    """An empty video among them, and one of a single frame."""
    grids = [torch.randn(3, 2, 4, 5), torch.randn(0, 3, 2, 5), torch.randn(1, 3, 2, 5), torch.randn(4, 1, 2, 5)]
    videos = PackedVideos.from_frames(grids)
    theirs = example.PaperPolicy(5)
    ours = SurprisePolicy(SurprisePolicyConfig(token_width=5, **PAPER_POLICY))
    with torch.no_grad():
        for mine, layer in zip((*ours.hidden, ours.output), theirs.network[::2], strict=True):
            mine.weight.copy_(layer.weight)
            mine.bias.copy_(layer.bias)
    torch.testing.assert_close(ours(videos), theirs(videos), atol=1e-5, rtol=1e-4)


def test_its_advantage_is_the_presets(example: ModuleType) -> None:
    task, sparsity = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0))
    sparsity = sparsity.sigmoid()
    rewards = Rewards(task, sparsity, task, {}, COMBINATIONS["product"])
    expected = ADVANTAGES["by_baseline"](rewards, 1.0, False, ("keep",))["keep"]
    torch.testing.assert_close(example.split_advantage(task * sparsity, task > 0), expected)
