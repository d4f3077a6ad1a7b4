"""Names of strategies, and the guide to adding one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from score_video.rl import ADVANTAGES, COMPRESSIONS, REWARDS, SAMPLINGS, find
from score_video.rl.rewards import correct

GUIDE = Path(__file__).parents[3] / "docs" / "adding-an-advantage.md"


def test_find() -> None:
    assert find(REWARDS, "correct") is correct
    assert find(REWARDS, "score_video.rl.rewards:correct") is correct
    assert find(REWARDS, abs) is abs  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["corect", "", ":", "math:", ":pi", "score_video.rl"])
def test_unknown_name(name: str) -> None:
    with pytest.raises(ValueError, match=f"name {name!r} is not registered; the registered names are log_prob,"):
        find(REWARDS, name)


@pytest.mark.parametrize("name", ["no_such_module_of_ours:f", "math:no_such_function"])
def test_name_that_cannot_be_imported(name: str) -> None:
    with pytest.raises(ValueError, match=rf"name {name!r} cannot be imported \(.*; the registered names are exact"):
        find(SAMPLINGS, name)


def test_the_guide_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    registries: dict[str, dict[str, Any]] = {
        "SAMPLINGS": SAMPLINGS,
        "REWARDS": REWARDS,
        "COMPRESSIONS": COMPRESSIONS,
        "ADVANTAGES": ADVANTAGES,
    }
    text = GUIDE.read_text()
    for name, registry in registries.items():  # the table lists what there is
        (row,) = re.findall(rf"^\| `{name}` \|.*$", text, re.MULTILINE)
        assert re.findall(r"`(\w+)`", row)[1:] == list(registry)
        for entry in ("blocks", "sure_and_right", "squared", "best_of_group"):
            monkeypatch.setitem(registry, entry, None)  # so that what the guide registers goes again
            del registry[entry]

    names: dict[str, Any] = {}
    for snippet in re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        exec(compile(snippet, str(GUIDE), "exec"), names)
    assert "blocks" in SAMPLINGS
    assert names["loss"].isfinite()
    assert names["policy"].weight.grad.abs().sum() > 0
    assert all((advantage.sum(0).abs() < 1e-6).all() for advantage in names["advantage"].values())
    kept = names["rollout"].selection.index.view(-1, 4)
    assert torch.equal(kept[:, 0] % 4, torch.zeros(len(kept), dtype=torch.int64))


def test_a_module_may_lie_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which is not on the path of the command ``score``; what is installed goes before it."""
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rewards_of_mine.py").write_text("mine = abs")
    (tmp_path / "rewards_that_fail.py").write_text("mine = nothing")
    (tmp_path / "statistics.py").write_text("mine = abs")
    assert find(REWARDS, "rewards_of_mine:mine") is abs  # type: ignore[comparison-overlap]
    with pytest.raises(ValueError, match=r"cannot be imported \(NameError: name 'nothing' is not defined\)"):
        find(REWARDS, "rewards_that_fail:mine")
    with pytest.raises(ValueError, match="'statistics' has no attribute 'mine'"):
        find(REWARDS, "statistics:mine")
