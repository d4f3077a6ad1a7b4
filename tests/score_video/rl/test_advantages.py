"""Each advantage strategy against numbers worked by hand, and what must hold for all of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from score_video.rl.advantages import ADVANTAGES, Rewards
from score_video.rl.rewards import COMBINATIONS

FACTORS = {"exact": ("subset",), "bernoulli": ("keep", "drop"), "counted": ("subset", "count")}


def rewards(task: list[float], compression: list[float], correct: list[float], **decisions: list[int]) -> Rewards:
    """One group."""
    columns = {factor: torch.tensor(count, dtype=torch.int32)[:, None] for factor, count in decisions.items()}
    return Rewards(*(torch.tensor(x)[:, None] for x in (task, compression, correct)), columns)


# r + 2 c = 1, 4, 4, 3 with mean 3; without each: 11/3, 8/3, 8/3, 3
GROUP = rewards([1.0, 2.0, 4.0, 1.0], [0.0, 1.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.6])


def check(advantage: Tensor, *expected: float) -> None:
    assert advantage.dtype == torch.float32
    assert advantage[:, 0].tolist() == pytest.approx(expected, abs=1e-6)


def test_leave_one_out() -> None:
    result = ADVANTAGES["leave_one_out"](GROUP, 2.0, False, ("subset", "count"))
    assert list(result) == ["subset", "count"]
    for advantage in result.values():
        check(advantage, -8 / 3, 4 / 3, 4 / 3, 0)
    deviation = math.sqrt((4 + 1 + 1 + 0) / 3) + 1e-4
    scaled = ADVANTAGES["leave_one_out"](GROUP, 2.0, True, ("subset",))
    check(scaled["subset"], -8 / 3 / deviation, 4 / 3 / deviation, 4 / 3 / deviation, 0)


def test_joint() -> None:
    check(ADVANTAGES["joint"](GROUP, 2.0, False, ("subset",))["subset"], -2, 1, 1, 0)
    deviation = math.sqrt(2) + 1e-4
    scaled = ADVANTAGES["joint"](GROUP, 2.0, True, ("subset",))["subset"]
    check(scaled, -2 / deviation, 1 / deviation, 1 / deviation, 0)


def test_by_baseline() -> None:
    """Of a product: -2, 1, 3, -3, of which the first and last do not beat the full model; 0 does not either."""
    group = Rewards(
        *(torch.tensor(column)[:, None] for column in ([-4.0, 2.0, 3.0, -3.0], [0.5, 0.5, 1.0, 1.0], [0.0] * 4)),
        {},
        COMBINATIONS["product"],
    )
    check(group.total(1.0), -2, 1, 3, -3)
    check(ADVANTAGES["by_baseline"](group, 1.0, False, ("subset",))["subset"], 1, -2, 2, -1)
    check(ADVANTAGES["by_baseline"](group, 2.0, False, ("subset",))["subset"], 2, -4, 4, -2)
    scaled = ADVANTAGES["by_baseline"](group, 1.0, True, ("subset",))["subset"]
    halves = [1 / (math.sqrt(0.5) + 1e-4), 2 / (math.sqrt(2) + 1e-4)]
    check(scaled, halves[0], -halves[1], halves[1], -halves[0])
    alone = Rewards(*(torch.tensor(column)[:, None] for column in ([1.0, -1.0, 0.0], [1.0] * 3, [0.0] * 3)), {})
    check(ADVANTAGES["by_baseline"](alone, 1.0, False, ("subset",))["subset"], 0, -1, 1)


@pytest.mark.parametrize("name", ["leave_one_out", "joint", "by_baseline", "by_action", "by_factor"])
def test_what_is_combined_otherwise_is_compared_otherwise(name: str) -> None:
    task, compression = torch.tensor([[-1.0], [-2.0], [2.0], [1.0]]), torch.tensor([[0.5], [0.9], [0.1], [0.9]])
    factors = FACTORS["counted" if name == "by_factor" else "bernoulli"]
    decisions = {factor: torch.ones(4, 1) for factor in factors}
    sums, products = (
        ADVANTAGES[name](Rewards(task, compression, task, decisions, COMBINATIONS[how]), 1.0, False, factors)
        for how in ("sum", "product")
    )
    changed = [factor for factor in factors if not torch.equal(sums[factor], products[factor])]
    assert changed == ["count"] if name == "by_factor" else list(factors)


def test_by_objective() -> None:
    plain = ADVANTAGES["by_objective"](GROUP, 2.0, False, ("subset",))["subset"]
    check(plain, -2, 1, 1, 0)
    # two groups: r centred -1 1 and -10 10, c centred 1 -1 and 0 0; deviations sqrt(2), 10 sqrt(2) and sqrt(2)
    two = Rewards(torch.tensor([[0.0, 0.0], [2.0, 20.0]]), torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.ones(2, 2), {})
    half = math.sqrt(0.5)  # -1 / sqrt(2), about: 1e-4 of the deviation moves the sixth digit
    # sums with w = 3: 2 half, -2 half; -half, half. Squares 2 2 0.5 0.5 over 4 - 1.
    deviation = math.sqrt(5 / 3)
    scaled = ADVANTAGES["by_objective"](two, 3.0, True, ("subset",))["subset"]
    expected = torch.tensor([[2 * half, -half], [-2 * half, half]]) / deviation
    torch.testing.assert_close(scaled, expected, rtol=0, atol=3e-4)


def test_by_objective_weighs_rewards_of_any_size_alike() -> None:
    large = Rewards(GROUP.task * 1000, GROUP.compression, GROUP.correct, {})
    arguments = 2.0, True, ("subset",)
    ordinary = ADVANTAGES["by_objective"](GROUP, *arguments)["subset"]
    torch.testing.assert_close(ADVANTAGES["by_objective"](large, *arguments)["subset"], ordinary, rtol=0, atol=1e-3)


def test_by_outcome() -> None:
    # r left out: -4/3 0 8/3 -4/3; c among samples 1 to 3 (1, 0, 1) left out: 1/2 -1 1/2
    check(ADVANTAGES["by_outcome"](GROUP, 2.0, False, ("subset",))["subset"], -4 / 3, 1, 2 / 3, -1 / 3)
    task, compression = math.sqrt(2) + 1e-4, math.sqrt(1 / 3) + 1e-4
    scaled = ADVANTAGES["by_outcome"](GROUP, 2.0, True, ("subset",))["subset"]
    check(scaled, -4 / 3 / task, 1 / compression, 8 / 3 / task - 2 / compression, -4 / 3 / task + 1 / compression)


@pytest.mark.parametrize("correct", [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 0.5]])
@pytest.mark.parametrize("scale", [False, True])
def test_by_outcome_without_two_right_samples_compares_no_compression(correct: list[float], scale: bool) -> None:
    group = rewards([0.0, 1.0, 5.0], [0.3, 0.1, 0.7], correct)
    task_only = ADVANTAGES["leave_one_out"](group, 0.0, scale, ("subset",))["subset"]
    assert torch.equal(ADVANTAGES["by_outcome"](group, 9.0, scale, ("subset",))["subset"], task_only)


def test_by_action() -> None:
    group = rewards([0.0, 1.0], [0.0, 0.0], [1.0, 1.0], keep=[3, 1], drop=[5, 7])
    result = ADVANTAGES["by_action"](group, 1.0, False, ("keep", "drop"))
    # 2 kept and 6 dropped in the mean, 4 the mean of these
    check(result["keep"], -2, 2)
    check(result["drop"], -2 / 3, 2 / 3)


def test_by_action_where_nothing_is_ever_kept() -> None:
    group = rewards([0.0, 1.0], [0.0, 0.0], [1.0, 1.0], keep=[0, 0], drop=[8, 8])
    result = ADVANTAGES["by_action"](group, 1.0, False, ("keep", "drop"))
    check(result["keep"], 0, 0)
    check(result["drop"], -0.5, 0.5)


@pytest.mark.parametrize("factors", [("subset",), ("subset", "count")])
def test_by_action_of_other_laws_is_leave_one_out(factors: tuple[str, ...]) -> None:
    result = ADVANTAGES["by_action"](GROUP, 2.0, True, factors)
    expected = ADVANTAGES["leave_one_out"](GROUP, 2.0, True, factors)
    assert all(torch.equal(result[factor], expected[factor]) for factor in factors)


def test_by_factor() -> None:
    result = ADVANTAGES["by_factor"](GROUP, 2.0, False, ("subset", "count"))
    check(result["subset"], -4 / 3, 0, 8 / 3, -4 / 3)
    check(result["count"], -8 / 3, 4 / 3, 4 / 3, 0)
    scaled = ADVANTAGES["by_factor"](GROUP, 2.0, True, ("subset", "count"))
    deviation = math.sqrt(2) + 1e-4  # of both
    check(scaled["subset"], -4 / 3 / deviation, 0, 8 / 3 / deviation, -4 / 3 / deviation)
    check(scaled["count"], -8 / 3 / deviation, 4 / 3 / deviation, 4 / 3 / deviation, 0)
    check(ADVANTAGES["by_factor"](GROUP, 2.0, False, ("subset",))["subset"], -4 / 3, 0, 8 / 3, -4 / 3)


def test_by_factor_has_nothing_for_bernoulli() -> None:
    with pytest.raises(ValueError, match=r"factors must be subset.*got keep, drop"):
        ADVANTAGES["by_factor"](GROUP, 2.0, False, ("keep", "drop"))


values = st.floats(-5, 5, width=32)


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("sampling", FACTORS)
@pytest.mark.parametrize("name", ADVANTAGES)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_equal_groups_are_exactly_zero_and_groups_sum_to_zero(
    name: str, sampling: str, scale: bool, data: st.DataObject
) -> None:
    if (name, sampling) == ("by_factor", "bernoulli"):
        return
    samples, videos = data.draw(st.integers(2, 9)), data.draw(st.integers(1, 4))
    rows = data.draw(st.lists(st.lists(values, min_size=3, max_size=3), min_size=videos, max_size=videos))
    constant = torch.tensor(rows).T[:, None].expand(3, samples, videos)  # [3, G, B]
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    # at least one each: where nobody made such a decision there is nothing to be answerable for
    decisions = {factor: torch.randint(1, 9, (samples, videos), generator=generator) for factor in FACTORS[sampling]}
    weight = data.draw(st.floats(0.05, 3))
    equal = ADVANTAGES[name](Rewards(*constant, decisions), weight, scale, FACTORS[sampling])
    assert tuple(equal) == FACTORS[sampling]
    assert all((advantage == 0).all() for advantage in equal.values())
    task, compression, correct = torch.rand(3, samples, videos, generator=generator)
    varied = ADVANTAGES[name](Rewards(task, compression, correct, decisions), weight, scale, FACTORS[sampling])
    for advantage in varied.values():
        assert advantage.abs().max() > 0
        assert advantage.sum(0).abs().max() < 1e-4 * max(1.0, float(advantage.abs().max()))


@pytest.mark.parametrize("name", ADVANTAGES)
def test_a_group_of_one_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"G of at least 2 samples in a group, got \[1, 1\]"):
        ADVANTAGES[name](rewards([1.0], [1.0], [1.0]), 1.0, False, ("subset",))


def test_shapes_that_differ_are_refused() -> None:
    task = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"correct must be \[2, 3\], as task is, got \[2, 1\]"):
        Rewards(task, task, torch.zeros(2, 1), {})
    with pytest.raises(ValueError, match=r"decisions\['keep'\] must be \[2, 3\]"):
        Rewards(task, task, task, {"keep": torch.zeros(3)})
