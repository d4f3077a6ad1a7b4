"""Rewards by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from score_video.packed import PackedVideos
from score_video.rl.environment import Outcome, Selection
from score_video.rl.rewards import COMBINATIONS, COMPRESSIONS, REWARDS, LogProb, check_finite, kept_ratio, needs


def outcome(divergence: Tensor | None = None) -> Outcome:
    return Outcome(torch.tensor([[-0.5, -7.0]]), torch.tensor([[1.0, 0.25]]), divergence)


def test_task_rewards() -> None:
    assert REWARDS["log_prob"](outcome()).tolist() == [[-0.5, -3.0]]
    assert LogProb(floor=-10)(outcome()).tolist() == [[-0.5, -7.0]]
    assert REWARDS["correct"](outcome()).tolist() == [[1.0, 0.25]]
    assert REWARDS["fidelity"](outcome(torch.tensor([[0.0, 2.0]]))).tolist() == [[0.0, -2.0]]


def test_delta_ce() -> None:
    compared = Outcome(torch.tensor([[-0.5, -7.0], [-0.25, -1.0]]), torch.ones(2, 2), None, torch.tensor([-0.5, -2.0]))
    assert REWARDS["delta_ce"](compared).tolist() == [[0.0, -5.0], [0.25, 1.0]]
    with pytest.raises(ValueError, match=r"outcome\.full_log_prob must be there"):
        REWARDS["delta_ce"](outcome())


def test_combinations() -> None:
    task, compression = torch.tensor([[-2.0, 0.0, 3.0]]), torch.tensor([[0.5, 0.9, 0.5]])
    torch.testing.assert_close(COMBINATIONS["sum"](task, compression, 2.0), torch.tensor([[-1.0, 1.8, 4.0]]))
    torch.testing.assert_close(COMBINATIONS["product"](task, compression, 2.0), torch.tensor([[-2.0, 0.0, 3.0]]))


def test_what_rewards_need() -> None:
    asked = {name: needs(reward) for name, reward in REWARDS.items()}
    assert {name: want for name, want in asked.items() if want} == {
        "fidelity": {"divergence": True},
        "delta_ce": {"full": True},
    }
    assert needs(lambda outcome: outcome.correct) == {}
    with pytest.raises(ValueError, match=r"outcome\.divergence must be there"):
        REWARDS["fidelity"](outcome())


@pytest.mark.parametrize("floor", [0.0, 1.0, math.nan, -math.inf])
def test_wrong_floor(floor: float) -> None:
    with pytest.raises(ValueError, match="floor must be finite and below 0"):
        LogProb(floor)


def test_compressions() -> None:
    ratio = torch.tensor([[0.0, 0.125, 0.25, 0.5, 1.0]])
    assert COMPRESSIONS["linear"](ratio, 0.25).tolist() == [[1.0, 0.875, 0.75, 0.5, 0.0]]
    assert COMPRESSIONS["hinged"](ratio, 0.25).tolist() == [[0.0, 0.0, 0.0, -1.0, -3.0]]


@pytest.mark.parametrize("target", [0.0, -0.1, 1.5, math.nan])
def test_wrong_target(target: float) -> None:
    with pytest.raises(ValueError, match=r"target must lie in \(0, 1\]"):
        COMPRESSIONS["hinged"](torch.ones(1, 1), target)


def test_kept_ratio() -> None:
    videos = PackedVideos.from_frames([torch.zeros(length, 1, 1, 1) for length in (8, 0, 3)])
    selection = Selection(torch.zeros(0, dtype=torch.int64), torch.tensor([[2, 0, 3], [8, 0, 0]], dtype=torch.int32))
    ratio = kept_ratio(selection, videos)
    assert ratio.dtype == torch.float32
    assert ratio.tolist() == [[0.25, 0.0, 1.0], [1.0, 0.0, 0.0]]


def test_check_finite() -> None:
    reward = torch.zeros(2, 3)
    assert check_finite("mine", reward) is reward
    reward[1, 2] = math.nan
    with pytest.raises(ValueError, match=r"'mine' must be finite, got 1 of 6 .*\(sample 1 of video 2\)"):
        check_finite("mine", reward)
    with pytest.raises(ValueError, match=r"got 6 of 6 .*, \.\.\.\)"):
        check_finite("mine", torch.full((2, 3), -math.inf))
