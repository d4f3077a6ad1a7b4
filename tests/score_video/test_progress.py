"""Times of phases, and what makes a command's start quick."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest

import score_video.progress
from score_video.progress import Phases, quick_imports


def test_phases_are_told_and_measured() -> None:
    told: list[tuple[str, int, int]] = []
    phases = Phases(lambda *step: told.append(step))
    phases.began_with_the_process()
    with phases("one") as report:
        time.sleep(0.02)
        report(1, 2)
    with pytest.raises(KeyError), phases("two"):
        raise KeyError
    assert told == [("one", 0, 1), ("one", 1, 2), ("one", 1, 1), ("two", 0, 1)]
    assert list(phases.milliseconds) == ["start", "one"]  # what was not finished has no time
    assert phases.milliseconds["one"] >= 20


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="the system does not tell")
def test_the_start_is_that_of_the_process() -> None:
    def start() -> float:
        phases = Phases()
        phases.began_with_the_process()
        return phases.milliseconds["start"]

    first = start()
    assert first > 0
    time.sleep(0.05)
    assert 50 <= start() - first < 10_000


def test_where_the_system_does_not_tell_there_is_no_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(score_video.progress.time, "clock_gettime")
    phases = Phases()
    phases.began_with_the_process()
    assert phases.milliseconds == {}


@pytest.mark.parametrize("was_on", [True, False])
def test_nothing_is_collected_while_modules_are_imported(was_on: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if was_on else gc.disable)()
        with pytest.raises(ImportError), quick_imports():
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled() == was_on
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        (gc.enable if before else gc.disable)()
