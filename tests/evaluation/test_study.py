"""The study: its statistics against numbers worked by hand, its workers, and all of it once, tiny."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from answer_job import answer
from hypothesis import given
from hypothesis import strategies as st

from evaluation import pool
from evaluation.experiments import EXPERIMENTS, SAME_WHEN_COUNTED, Plan
from evaluation.figures import spread_labels
from evaluation.found import Cell, Found
from evaluation.jobs import Files, Job, fingerprint, save_json
from evaluation.recipe import FULL, QUICK
from evaluation.statistics import Answers, pack, share_out, spearman, unpack
from evaluation.study import Study
from evaluation.sweep import Run, Sweep
from evaluation.tables import accuracy, percent, signed, table
from evaluation.train import SeveralReaders, _encoded_once
from evaluation.verdicts import all_verdicts, helps
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.miniature.reader import Reader, ReaderConfig
from score_video.rl.advantages import ADVANTAGES, Rewards
from score_video.rl.environment import Selection

# ---- Statistics


def test_spearman_by_hand() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 4000]) == pytest.approx(1)
    assert spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    # no ties: 1 - 6 sum d^2 / (n (n^2 - 1)), d = 1, 1, 0, 0, 0 -> 1 - 12 / 120
    assert spearman([1, 2, 3, 4, 5], [2, 1, 3, 4, 5]) == pytest.approx(0.9)
    # ties at their mean rank: ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4 -> 4.5 / sqrt(4.5 * 5)
    assert spearman([0, 7, 7, 9], [1, 2, 3, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_share_out_by_hand() -> None:
    # 10 in proportion 1 : 2 : 4 is 1.43, 2.86, 5.71: rounded down 1, 2, 5, the two left to the largest remainders
    assert share_out([1, 2, 4], 10, [9, 9, 9]).tolist() == [1, 3, 6]
    # at least 1 and at most all: the first and the last are bound, the other has the rest
    assert share_out([1e-9, 1, 100], 10, [9, 9, 5]).tolist() == [1, 4, 5]
    assert share_out([1, 1], 4, [2, 2]).tolist() == [2, 2]
    with pytest.raises(ValueError, match="total must lie between 2 and 4, got 5"):
        share_out([1, 1], 5, [2, 2])


@given(st.data())
def test_share_out_is_exact_and_bounded(data: st.DataObject) -> None:
    number = data.draw(st.integers(1, 30))
    weights = data.draw(st.lists(st.floats(1e-6, 1e6), min_size=number, max_size=number))
    longest = data.draw(st.lists(st.integers(1, 600), min_size=number, max_size=number))
    total = data.draw(st.integers(number, sum(longest)))
    counts = share_out(weights, total, longest)
    assert counts.sum() == total
    assert (counts >= 1).all() and (counts <= longest).all()
    order = np.argsort(weights)
    for less, more in itertools.pairwise(order):  # more weight is not fewer tokens, but for the bounds
        assert counts[more] >= min(counts[less], longest[more]) - 1


@given(st.integers(1, 20), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_marks_survive_packing(videos: int, tasks: int, seed: int) -> None:
    marks = np.random.default_rng(seed).random((videos, tasks)) < 0.5
    assert np.array_equal(unpack(pack(marks), marks.shape), marks)


def test_answers_by_hand() -> None:
    asked = np.array([[True, True], [True, False], [True, True], [True, False]])
    right = np.array([[1.0, 1], [0, 0], [1, 0], [1, 0]])
    answers = Answers(right, asked)
    assert answers.accuracy == pytest.approx(4 / 6)
    assert answers.by_task.tolist() == pytest.approx([3 / 4, 1 / 2])
    # residuals 2 - 2 * 2/3, 0 - 2/3, 1 - 2 * 2/3, 1 - 2/3; their squares sum to 10/9; times 4/3, root, over 6
    assert answers.standard_error == pytest.approx(np.sqrt(10 / 9 * 4 / 3) / 6)
    other = Answers(np.zeros_like(right), asked)
    assert answers.minus(other) == (answers.accuracy, answers.standard_error)
    assert answers.minus(answers) == (0, 0)
    both = Answers.mean_of([answers, other])
    assert both.accuracy == pytest.approx(2 / 6)
    with pytest.raises(ValueError, match="same questions"):
        answers.minus(Answers(right, np.ones_like(asked)))


def test_videos_with_as_many_questions_have_the_usual_standard_error() -> None:
    right = np.random.default_rng(0).integers(0, 2, (50, 3)).astype(float)
    answers = Answers(right, np.ones((50, 3), bool))
    assert answers.standard_error == pytest.approx(right.mean(1).std(ddof=1) / np.sqrt(50))


# ---- Text and figures


def test_numbers_as_text() -> None:
    asked = np.ones((2, 2), bool)
    one, other = Answers(np.array([[1.0, 1], [1, 0]]), asked), Answers(np.array([[1.0, 0], [1, 0]]), asked)
    assert accuracy(Cell(Answers.mean_of([one, other]), (0.75, 0.5))) == "62.5 (50.0 to 75.0)"
    assert accuracy(Cell(one, (0.75,))) == "75.0 ± 25.0"
    assert percent(float("nan")) == "-"
    assert signed((-0.0123, 0.004)) == "-1.2 ± 0.4"
    assert table(["a", "b"], [["c", "d"]]) == ["| a | b |", "| --- | ---: |", "| c | d |", ""]
    assert helps((0.021, 0.01)) and not helps((0.019, 0.01)) and not helps((-0.5, 0.01))


@given(st.lists(st.floats(0, 100), min_size=1, max_size=9))
def test_labels_do_not_touch_and_keep_their_order(places: list[float]) -> None:
    moved = spread_labels(places, 5, 0, 100)
    order = np.argsort(places, kind="stable")
    assert (np.diff(np.array(moved)[order]) >= 5 - 1e-9).all()
    assert min(moved) >= -1e-9 and max(moved) <= 100 + 1e-9


def test_labels_far_apart_stay() -> None:
    assert spread_labels([50, 10, 90], 5, 0, 100) == [50, 10, 90]
    assert spread_labels([50, 50], 4, 0, 100) == [48, 52]


# ---- Jobs


def test_equal_work_has_an_equal_key_and_other_work_another() -> None:
    job = Job("full", {"a": 1, "b": [2]}, {"split": "plain"})
    assert job.key == Job("full", {"b": [2], "a": 1}, {"split": "other"}).key
    assert job.key != Job("full", {"a": 1, "b": [3]}).key
    assert job.key != Job("method", {"a": 1, "b": [2]}).key


def test_another_file_is_another_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    one, two = (fingerprint(tmp_path / name, "reader") for name in ("one", "two"))
    assert one != two and one.startswith("reader@")


def test_every_experiment_can_be_planned() -> None:
    towers = {name: f"{name}@0" for name in (*FULL.train_towers, *FULL.test_towers, "shipped")}
    plan = Plan(FULL, towers, "clip@0")
    jobs = {name: build(plan) for name, build in EXPERIMENTS.items()}
    assert all(jobs.values())
    for name, of in jobs.items():
        json.dumps([job.parameters for job in of])
        if name != "advantages":  # there two strategies may be one by definition
            assert len({job.key for job in of}) == len(of), name
    # the same policies, not trained again
    assert {job.key for job in jobs["rot"]} <= {job.key for job in (*jobs["full"], *jobs["policy"])}
    # without footage that split is left out, without towers that experiment
    less = Plan(FULL, {"shipped": "shipped@0"}, None)
    assert len(EXPERIMENTS["full"](less)) == len(jobs["full"]) - 1
    assert EXPERIMENTS["relative"](less) == []


def test_strategies_taken_for_the_same_are_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    task, compression = torch.rand(2, 4, 3, generator=generator)
    decisions = {name: torch.randint(1, 9, (4, 3), generator=generator) for name in ("subset", "count")}
    rewards = Rewards(task, compression, task.round(), decisions)
    for (strategy, scale), same in SAME_WHEN_COUNTED.items():
        one, other = (ADVANTAGES[name](rewards, 0.7, scale, ("subset", "count")) for name in (strategy, same))
        for factor in one:
            torch.testing.assert_close(one[factor], other[factor])


def test_a_job_that_fails_or_dies_takes_no_other_along() -> None:
    ended: list[pool.Done] = []
    jobs = [Job("answer", {"what": what}) for what in ("one", "raise", "die", "two")]
    pool.run_all(jobs, {"answer": answer}, Files({}, {}), 1, ended.append)
    results = {done.job.parameters["what"]: done for done in ended}
    assert [results[what].result for what in ("one", "two")] == [
        {"answer": what, "threads": 1} for what in ("one", "two")
    ]
    assert results["raise"].error is not None and results["raise"].error[0] == "ValueError: asked to"
    assert results["die"].error is not None and "exit status 7" in results["die"].error[0]


# ---- The document, from made-up results

TINY = replace(FULL, retentions=(0.05, 0.10), test_videos=dict.fromkeys(FULL.test_videos, 4), seeds=(0, 1))
PLAN = Plan(TINY, {"shipped": "shipped@0"}, None)
ASKED = np.ones((4, 7), bool)


def made_up(row: Mapping[str, Any], share: float) -> dict[str, Any]:
    """A row with about that share of the questions right."""
    right = (np.arange(28) < round(28 * share)).reshape(4, 7)
    return {**row, "accuracy": right.mean(), "questions": 28, "kept": 0.1, "right": pack(right)}


def keep(folder: Path, job: Job, result: Mapping[str, Any]) -> None:
    names = ("cpu", "cores", "date", "torch", "transformers", "python", "score", "commit")
    made = dict.fromkeys(names, "?")
    save_json(job.file(folder), {"cpu_seconds": 1.0, "made": made, "result": result})


def keep_tests(folder: Path, policy: float, rival: float) -> None:
    """Full 100%; the policy and every rival as given, the oracle 100%."""
    for job in EXPERIMENTS["full"](PLAN):
        keep(folder, job, {"shape": ASKED.shape, "asked": pack(ASKED), "row": made_up({}, 1.0)})
    for job in EXPERIMENTS["methods"](PLAN):
        of = job.parameters
        share = 1.0 if of["method"] == "oracle" else rival
        every = [(law, seed, r) for law in of["laws"] for seed in of["seeds"] for r in of["retentions"]]
        rows = [made_up({"law": law, "seed": seed, "retention": r}, share) for law, seed, r in every]
        keep(folder, job, {"rows": rows})
    for job in EXPERIMENTS["policy"](PLAN):
        of = job.parameters
        every = [(test, law, r) for test in of["tests"] for law in of["laws"] for r in of["retentions"]]
        rows = [
            made_up({"split": test["split"], "reader": test["reader"], "law": law, "retention": r}, policy)
            for test, law, r in every
        ]
        keep(folder, job, {"curve": [], "rows": rows})


def test_verdicts_follow_the_numbers(tmp_path: Path) -> None:
    keep_tests(tmp_path / "good", policy=1.0, rival=0.75)
    good = all_verdicts(Found(PLAN, tmp_path / "good"))
    assert [verdict.met for verdict in good] == [True] * 8 + [False]  # no context rot: as good as full is not above
    keep_tests(tmp_path / "bad", policy=0.5, rival=0.75)
    bad = all_verdicts(Found(PLAN, tmp_path / "bad"))
    assert [verdict.met for verdict in bad] == [True] + [False] * 8
    assert "-25.0" in next(verdict.measured for verdict in bad if "best rival" in verdict.expected)


def test_a_run_has_collapsed_when_next_to_nothing_or_most_is_kept() -> None:
    def run(expected: float, ratio: float) -> Run:
        return Run("joint", False, 1.0, 0, expected, ratio, 0.9, 0.5)

    assert run(2.9, 0.005).collapsed and run(400, 0.61).collapsed
    assert not run(3.0, 0.6).collapsed


def test_a_strategy_holds_where_no_seed_collapsed(tmp_path: Path) -> None:
    for job in EXPERIMENTS["advantages"](PLAN):
        tags = job.tags
        dead = tags["strategy"] == "by_factor" and tags["seed"] == 1 and tags["weight"] >= 1
        ratio = 0.001 if dead else 0.1 / tags["weight"] ** 0.2
        # on one curve, but for by_factor, 2 points above it
        share = 0.9 + 0.1 * np.log10(ratio) + 0.02 * (tags["strategy"] == "by_factor")
        result = {"expected": 576 * ratio, "expected_ratio": ratio, "correlation": 0.5, "deployed": {"accuracy": share}}
        keep(tmp_path, job, result)
    sweep = Sweep(Found(PLAN, tmp_path))
    held = sweep.weights_held()
    weights = PLAN.recipe.sweep_weights
    assert held["by_factor", False] == held["by_factor", True] == sum(weight < 1 for weight in weights)
    assert held["leave_one_out", False] == held["by_action", True] == len(weights)
    beyond = sweep.beyond_curve()
    gained = beyond["by_factor", False][0] - beyond["joint", False][0]
    assert gained == pytest.approx(0.02, abs=0.005)


# ---- Environments of the study


def tiny_reader(number: int) -> Reader:
    torch.manual_seed(number)
    return Reader(ReaderConfig(tower_width=8, token_width=8 + number, width=12, layers=1, heads=2))


def test_videos_encoded_once_are_the_videos_encoded() -> None:
    inner = MiniatureEnvironment(tiny_reader(0))
    once = _encoded_once(inner, (("plain", 0.5), ("long", 0.5)), 80, 3)
    examples = [MiniatureVideos(split, "train", 3, 40)[n] for split, n in (("long", 39), ("plain", 2), ("plain", 35))]
    one, other = once.encode(examples), inner.encode(examples)
    torch.testing.assert_close(one.videos.tokens, other.videos.tokens)
    for field in ("cu_seqlens", "tokens_per_frame", "columns"):
        assert torch.equal(getattr(one.videos, field), getattr(other.videos, field))
    for field in ("place", "answers", "shown"):
        assert torch.equal(getattr(one.payload, field), getattr(other.payload, field))


def test_several_readers_take_turns_by_the_first_example() -> None:
    several = [MiniatureEnvironment(tiny_reader(number)) for number in range(3)]
    together = SeveralReaders(several)
    data = MiniatureVideos("plain", "train", 0, 10)
    for first in range(6):
        batch = together.encode([data[first], data[9]])
        assert batch.videos.tokens.shape[1] == 8 + first % 3
        everything = Selection(torch.arange(len(batch.videos.tokens)), batch.videos.lengths[None])
        own = several[first % 3]
        expected = own.answer(own.encode([data[first], data[9]]), everything)
        torch.testing.assert_close(together.answer(batch, everything).log_prob, expected.log_prob)


# ---- All of it


@pytest.fixture(scope="module")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    names = {"shipped", *QUICK.train_towers, *QUICK.test_towers}
    readers = {}
    for number, name in enumerate(sorted(names)):
        readers[name] = folder / f"{name}.safetensors"
        tiny_reader(number).save(readers[name])
    splits = ("plain", "lookalike", "static", "density", "long")
    recipe = replace(QUICK, test_videos=dict.fromkeys(splits, 4), retentions=(0.05,), few_retentions=(0.05,))
    recipe = replace(recipe, curriculum={"sparse": {"reward": "correct"}}, sweep_weights=(0.5,), sweep_test_videos=4)
    return Study(recipe, readers, None, folder / "results", folder / "docs")


def test_all_of_it_once(small_study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert small_study.run(list(EXPERIMENTS), workers=1) == []
    written = {path.name for path in small_study.report()}
    figures = {f"results-{name}.png" for name in ("retention", "state", "count", "advantages")}
    assert written == {"results.md", "results-tasks.md", *figures}
    text = (small_study.docs / "results.md").read_text()
    assert "Not run" not in text and "nan" not in text and text.count("\n## ") == 11
    # nothing is run again; what is lost, or of another reader, is
    capsys.readouterr()
    assert small_study.run(["full"], workers=1) == []
    assert "0 jobs to run, 5 have" in capsys.readouterr().out
    next(small_study.results.glob("full-*.json")).unlink()
    assert small_study.run(["full"], workers=1) == []
    assert "1 jobs to run, 4 have" in capsys.readouterr().out
    assert (small_study.docs / "results.md").read_text() == text
    # a result of other parameters is not used, and said not to be
    save_json(small_study.results / "full-0123456789ab.json", {})
    small_study.run(["full"], workers=1)
    assert "1 results there are of other parameters" in capsys.readouterr().out


def test_a_failed_job_is_reported_and_missing_results_are_said_to_be(small_study: Study, tmp_path: Path) -> None:
    readers = {**small_study.readers, "shipped": tmp_path / "shipped.safetensors"}
    readers["shipped"].write_bytes(b"no weights")
    study = replace(small_study, readers=readers, results=tmp_path / "results", docs=tmp_path / "docs")
    failed = study.run(["full"], workers=1)
    assert len(failed) == 5 and all("shipped.safetensors" in ended.error[0] for ended in failed if ended.error)
    study.report()
    assert "Not run: 0 of 5 results are there." in (study.docs / "results.md").read_text()
