"""The study of the composite world, all of it once and tiny, on features made up here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from helpers.made_up_features import TOWER, made_up, save_features

from evaluation.experiments import Plan, load_recipe
from evaluation.jobs import Code, StudyError
from evaluation.study import Study
from evaluation.work import milliseconds
from evaluation.worlds import WORLDS
from score_video.composite.reader import Reader, ReaderConfig
from score_video.errors import ScoreError
from score_video.packed import PackedVideos
from score_video.rl.environment import EncodedBatch

CLEAN = Code("c" * 12, "0123456789", ())


def make_up_features(folder: Path, tower: str = TOWER) -> None:
    """Twenty videos of each partition."""
    torch.manual_seed(0)
    for partition in ("policy", "still", "test"):
        save_features(folder, partition, made_up(), tower)


@pytest.fixture
def study(tmp_path: Path) -> Study:
    make_up_features(tmp_path / "features")
    torch.manual_seed(0)
    Reader(ReaderConfig(6, TOWER, width=12, layers=1, heads=2)).save(tmp_path / "reader.safetensors")
    recipe = dict(load_recipe("composite", quick=True))
    recipe["media"] = {**recipe["media"], "name": "made-up", "identity": TOWER}
    readers = {"shipped": tmp_path / "reader.safetensors"}
    return Study(recipe, readers, tmp_path / "features", tmp_path / "results", tmp_path / "docs", CLEAN)


def test_all_of_it_once(study: Study) -> None:
    assert study.run(list(study.recipe["experiments"]), workers=1) == []
    written = study.report()
    assert [path.name for path in written] == ["composite-results.md"]
    text = written[0].read_text()
    for line in ("| divprune |", "| **policy trained here, diverse** |", "| state relative, selected by diverse |"):
        assert text.count(line) >= 1
    for line in ("| stills first, selected by diverse |", "| the paper's, selected by topk |"):
        assert text.count(line) == 1
    assert "policy that comes with the package, diverse" in text
    assert "Not run" not in text and "incomplete" not in text
    tables = [table.splitlines() for table in text.split("\n\n") if table.startswith("| accuracy, % | 5% | 10% |")]
    assert len(tables) == 3 and all(head.endswith("| ms at 10% |") for head, *_ in tables)
    costs = [(line.split(" | ")[0], line.split(" | ")[-1].rstrip(" |")) for _, _, *rows in tables for line in rows]
    assert all(cost == "" if name == "| oracle" else float(cost) > 0 for name, cost in costs)


def test_a_choice_is_timed_on_one_video() -> None:
    """The first of a batch, as it would be by itself, its question with it."""
    videos = PackedVideos.from_frames([torch.randn(2, 3, 3, 4), torch.randn(4, 2, 2, 4)])
    seen: list[EncodedBatch] = []

    def choose(batch: EncodedBatch, keep: torch.Tensor) -> torch.Tensor:
        seen.append(batch)
        assert keep.tolist() == [9]
        return torch.arange(9)

    assert milliseconds([EncodedBatch(videos, None, torch.eye(2))] * 3, choose, 0.5) >= 0
    assert len(seen) == 4
    first = seen[0].videos
    assert first.lengths.tolist() == [18] and first.num_videos == 1
    torch.testing.assert_close(first.tokens, videos.tokens[:18])
    assert seen[0].question is not None and seen[0].question.tolist() == [[1, 0]]


def test_parts_may_be_missing(study: Study) -> None:
    study.run(["full", "methods", "policy"], workers=1)
    (written,) = study.report(partial=True)
    assert "## The paper's recipe\n\nNot run." in written.read_text()


def test_features_of_another_tower_are_refused(study: Study, tmp_path: Path) -> None:
    make_up_features(tmp_path / "others", "f" * 16)
    other = replace(study, media=tmp_path / "others")
    with pytest.raises(StudyError, match=f"features must be made-up with tower {TOWER} .*others has tower {'f' * 16}"):
        other.run(["full"], workers=1)
    with pytest.raises(StudyError, match=r"is missing: .*--media PATH"):
        replace(study, media=tmp_path / "nowhere").run(["full"], workers=1)


def test_the_recipe_trains_on_the_policys_partition_and_tests_on_the_other() -> None:
    plan = Plan(load_recipe("composite"), {"shipped": "shipped@0"}, "code")
    jobs = [job for own in plan.experiments.values() for job in own]
    trainings = [job.parameters["training"] for job in jobs if job.function == "policy"]
    assert {training["environment"] for training in trainings} == {"composite"}
    assert {test["split"] for job in jobs for test in job.parameters.get("tests", [])} == {"test"}
    assert {job.tags["seed"] for job in jobs if job.function == "policy"} == {0, 1, 2}


def test_data_of_a_stage_are_stills_or_videos() -> None:
    examples = WORLDS["composite"].examples
    assert examples("still", 0, 5, False)[3] == {"number": 3, "still": True}
    assert examples("test", 0, 5, False)[3] == {"number": 3, "still": False}
    with pytest.raises(ScoreError, match="data of a stage must be still or video in the composite world, got 'stills'"):
        examples("stills", 0, 5, False)
