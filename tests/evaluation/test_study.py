"""The study: its statistics against numbers worked by hand, its workers, and all of it once, tiny."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from answer_job import answer
from helpers.readers import tiny_reader
from hypothesis import given
from hypothesis import strategies as st

from evaluation import __main__ as command
from evaluation import pool
from evaluation.experiments import SAME_WHEN_COUNTED, Plan, Recipe, load_recipe, media_fingerprint
from evaluation.jobs import ROOT, Code, Job, StudyError, sources
from evaluation.report import head, percent, prefixed, render, row
from evaluation.results import Results
from evaluation.statistics import pack, share_out, unpack
from evaluation.study import Study
from evaluation.worlds import WORLDS
from score_video.command_line import run_module
from score_video.files import sha256_of
from score_video.miniature.train_policy import fingerprint
from score_video.policy.pretrained import PRETRAINED
from score_video.rl.advantages import ADVANTAGES, Rewards
from score_video.statistics import Difference, spread
from score_video.video.synthetic import write_clip

RECIPE, QUICK = load_recipe(), load_recipe(quick=True)

# ---- Statistics


def test_share_out_by_hand() -> None:
    # 10 in proportion 1 : 2 : 4 is 1.43, 2.86, 5.71. Next would be 1 / 1.5, just below 4 / 5.5 and 2 / 2.5
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


# ---- Text and figures


def test_numbers_as_text() -> None:
    assert percent(float("nan")) == "-" and percent(0.1234) == "12.3" and percent(0.4, of=0.8) == "50.0"
    assert str(Difference(-0.0123, 0.004)) == "-1.2 ± 0.4"
    assert spread([0.5, 0.7]) == "0.60 (0.50 to 0.70)" and spread([0.5], 1, 100) == "50.0"
    assert head("a", ["b"]) == "| a | b |\n| --- | ---: |"
    assert row("a", [1, 2], Difference(0, 0.01)) == "| a | 1 | 2 | +0.0 ± 1.0 |"
    assert prefixed(["5%", 0.5, 3.0], "at ") == ["at 5%", "at 0.5", "at 3"]
    clear, unclear, harm = Difference(0.021, 0.01), Difference(0.019, 0.01), Difference(-0.5, 0.01)
    assert clear.clear and not unclear.clear and not harm.clear and (-harm).clear


# ---- Jobs


def test_equal_work_by_equal_code_has_an_equal_key_and_other_work_or_code_another() -> None:
    job = Job("full", {"a": 1, "b": [2]}, "code", {"split": "plain"})
    assert job.key == Job("full", {"b": [2], "a": 1}, "code", {"split": "other"}).key
    assert job.key != Job("full", {"a": 1, "b": [3]}, "code").key
    assert job.key != Job("method", {"a": 1, "b": [2]}, "code").key
    other = Job("full", {"a": 1, "b": [2]}, "other code")
    assert job.key != other.key and job.work == other.work


def test_another_file_is_another_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"1")
    (tmp_path / "two").write_bytes(b"2")
    one, two = (fingerprint("reader", sha256_of(tmp_path / name)) for name in ("one", "two"))
    assert one != two and one.startswith("reader@")


READERS = ("shipped", "tower-1", "tower-2", "tower-3", "tower-4", "vit-dropping", "vit-whole")


def plan_of(recipe: Recipe) -> Plan:
    return Plan(recipe, {name: f"{name}@0" for name in READERS}, "code")


def test_every_experiment_can_be_planned() -> None:
    jobs = plan_of(RECIPE).experiments
    assert all(jobs.values())
    for name, of in jobs.items():
        json.dumps([job.parameters for job in of])
        assert all(job.code == "code" for job in of)
        if name != "advantages":  # there two strategies may be one by definition
            assert len({job.key for job in of}) == len(of), name
    # the same policies, not trained again
    assert {job.key for job in jobs["context-rot"]} <= {job.key for job in (*jobs["full"], *jobs["policy"])}
    footage = media_fingerprint(RECIPE)
    assert {job.tags["split"] for job in jobs["full"] if footage in job.work} == {"footage"}


def test_a_group_says_what_its_policies_are() -> None:
    """What arms, presets and grids make of a training, and --quick of all."""

    def trainings(recipe: Recipe, experiment: str) -> list[dict[str, Any]]:
        jobs = plan_of(recipe).experiments[experiment]
        return [job.parameters["training"] for job in jobs if "training" in job.parameters]

    assert trainings(RECIPE, "state")[3]["policy"] == {"use_residual": False}
    stages = [training["settings"].get("stages") for training in trainings(RECIPE, "curriculum")]
    assert stages[3] == [{"name": "pseudo_video", "steps": 133}, {"name": "video"}] and stages[0] is None
    of_paper = trainings(RECIPE, "paper")
    assert of_paper[0]["policy"]["first_residual"] == "token" and of_paper[0]["settings"]["sampling"] == "bernoulli"
    assert of_paper[0]["settings"]["max_steps"] == of_paper[-1]["settings"]["max_steps"] == 150
    assert of_paper[-4]["settings"]["stages"] is None and of_paper[-1]["policy"] == {}
    names = [training["settings"]["advantage"] for training in trainings(RECIPE, "advantages")]
    assert "by_objective" in names and "by_action" not in names  # leave_one_out, which it is
    for experiment in ("curriculum", "adaptive", "towers", "paper"):
        for training in trainings(QUICK, experiment):
            assert training["settings"]["max_steps"] == 2 and training["train_videos"] == 64


def test_a_group_names_its_environment() -> None:
    """Of its trainings and tests, and so of the jobs' keys."""
    groups = RECIPE["experiments"]["towers"]
    plan = plan_of(RECIPE)
    here, elsewhere = (
        [job for group in groups for job in plan.jobs({**group, **changes})]
        for changes in ({}, {"environment": "other"})
    )
    assert all('"environment": "miniature"' in job.work for job in here)
    assert [job.work.replace('"miniature"', '"other"') for job in here] == [job.work for job in elsewhere]


def test_a_reader_that_is_not_there_is_an_error() -> None:
    assert tuple(WORLDS["miniature"].readers()) == READERS
    plan = Plan(RECIPE, {"shipped": "shipped@0"}, "code")
    assert list(plan.jobs(RECIPE["experiments"]["full"][0]))
    with pytest.raises(
        StudyError, match=r"there is no reader tower-2 in evaluation/readers \(make\.sh there makes it\)"
    ):
        list(plan.jobs(RECIPE["experiments"]["towers"][0]))


# ---- The code


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with a little of every kind of file."""
    for name in (
        *("csrc/ops.cpp", "csrc/cpu/kernels.h", "csrc/cuda/kernels.cu", "csrc/ops_cuda.cpp", "CMakeLists.txt"),
        *("score_ext/ops.py", "python/score_video/rl/trainer.py", "python/score_video/commands/ask.py"),
        *("evaluation/work.py", "evaluation/report.py", "evaluation/results/full-0.json", "docs/results.md"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *words], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "decides", "counts"),
    [
        ("csrc/cpu/kernels.h", True, True),
        ("CMakeLists.txt", True, True),
        ("score_ext/ops.py", True, True),
        ("python/score_video/rl/trainer.py", True, True),
        ("python/score_video/rl/new.py", True, True),
        ("evaluation/work.py", True, True),
        ("evaluation/report.py", False, True),  # no result is of it, but every figure is
        ("python/score_video/commands/ask.py", False, True),
        ("evaluation/results/full-0.json", False, False),
        ("docs/results.md", False, False),
    ],
)
def test_a_change_of_code_is_another_hash_and_is_seen(checkout: Path, name: str, decides: bool, counts: bool) -> None:
    before = Code.of(checkout)
    assert before.changed == () and before.commit != "?"
    (checkout / name).write_text("changed")
    after = Code.of(checkout)
    assert (after.hash != before.hash) == decides
    assert after.changed == ((name,) if counts else ())


def test_a_file_that_moves_is_another_hash(checkout: Path) -> None:
    before = Code.of(checkout).hash
    (checkout / "score_ext/ops.py").rename(checkout / "score_ext/moved.py")
    assert Code.of(checkout).hash != before


def test_without_git_no_code_is_in_the_history(checkout: Path) -> None:
    known = Code.of(checkout).hash
    shutil.rmtree(checkout / ".git")
    code = Code.of(checkout)
    assert code.hash == known and code.commit == "?" and "no git checkout" in code.changed[0]


def test_all_that_a_job_loads_is_in_the_hash(tmp_path: Path) -> None:
    """Also what a training loads only when it runs."""
    tiny_reader(layers=1).save(tmp_path / "shipped.safetensors")
    recipe = {**QUICK, "test_videos": {"plain": 4}, "train_videos": 16, "retentions": [0.05], "one_split": "plain"}
    plan = Plan(recipe, {"shipped": "shipped@0"}, "code")
    work = next(plan.jobs({"jobs": "policy", "settings": RECIPE["settings"]})).parameters
    (tmp_path / "job.py").write_text(
        "import json, sys\n"
        "from pathlib import Path\n"
        "from evaluation.work import FUNCTIONS\n"
        f"files = {{'shipped@0': Path({str(tmp_path / 'shipped.safetensors')!r})}}\n"
        f"FUNCTIONS['policy'](files, **json.loads({json.dumps(work)!r}))\n"
        "ours = ('evaluation', 'score_ext', 'score_video')\n"
        "print('loaded:', *(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] in ours))\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "job.py")],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if line.startswith("loaded:"))
    loaded = {Path(name).relative_to(ROOT).as_posix() for name in line.split()[1:] if name.endswith(".py")}
    assert "python/score_video/rl/trainer.py" in loaded and "evaluation/work.py" in loaded
    # provenance tells of what ran, and decides nothing
    assert loaded - set(sources()) <= {"evaluation/__init__.py"}


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
    jobs = [Job("answer", {"what": what}, "code") for what in ("one", "raise", "die", "two")]
    ended = pool.run_all(jobs, {"answer": answer}, {}, 1)
    results = {done.job.parameters["what"]: done for done in ended}
    assert [results[what].result for what in ("one", "two")] == [
        {"answer": what, "threads": 1} for what in ("one", "two")
    ]
    assert results["raise"].error is not None and results["raise"].error.endswith("ValueError: asked to")
    assert results["die"].error is not None and results["die"].error == "its process died (exit status 7)"


# ---- The document, from made-up results

CLEAN = Code("code", "0123456789", ())
TINY = {**RECIPE, "retentions": [0.05, 0.10], "test_videos": dict.fromkeys(RECIPE["test_videos"], 4), "seeds": [0, 1]}
PLAN = plan_of(TINY)
JOBS = PLAN.experiments
ASKED = np.ones((4, 7), bool)


def made_up(row: Mapping[str, Any], share: float) -> dict[str, Any]:
    """A row with about that share of the questions right."""
    right = (np.arange(28) < round(28 * share)).reshape(4, 7)
    return {**row, "accuracy": right.mean(), "questions": 28, "kept": 0.1, "right": pack(right)}


def results_of(results: Mapping[str, Mapping[str, Any]]) -> Results:
    return Results(PLAN, {key: {"made": {"changed": []}, "result": result} for key, result in results.items()})


def made_up_tests(policy: float, rule: float) -> Results:
    """Full 100%; the policy and every method as given, the oracle 100%."""
    kept: dict[str, dict[str, Any]] = {}
    for job in JOBS["full"]:
        kept[job.key] = {"shape": ASKED.shape, "asked": pack(ASKED), "row": made_up({}, 1.0)}
    for job in JOBS["methods"]:
        of = job.parameters
        share = 1.0 if of["method"] == "oracle" else rule
        every = itertools.product(of["selections"], of["seeds"], of["retentions"])
        rows = [made_up({"selection": by, "seed": seed, "retention": r}, share) for by, seed, r in every]
        kept[job.key] = {"rows": rows}
    for job in JOBS["policy"]:
        of = job.parameters
        every = itertools.product(of["tests"], of["selections"], of["retentions"])
        rows = [
            made_up({"split": test["split"], "reader": test["reader"], "selection": by, "retention": r}, policy)
            for test, by, r in every
        ]
        kept[job.key] = {"curve": [], "rows": rows}
    return results_of(kept)


def checks_of(results: Results) -> list[list[str]]:
    """Rows of the table of what was expected: in words, whether it was met, what came."""
    lines = render("checks.md.j2", results, CLEAN, "").splitlines()[2:]
    return [line[2:-2].split(" | ") for line in lines]


def test_checks_follow_the_numbers() -> None:
    good = checks_of(made_up_tests(policy=1.0, rule=0.75))
    # no context rot: as good as full is not above
    assert [met for _, met, _ in good] == ["met"] * 8 + ["**not met**"]
    bad = checks_of(made_up_tests(policy=0.5, rule=0.75))
    assert [met for _, met, _ in bad] == ["met"] + ["**not met**"] * 8
    assert "-25.0" in next(measured for expected, _, measured in bad if "best method" in expected)


def sweep_of(expected: float, ratio: float) -> dict[str, Any]:
    return {"expected": expected, "expected_ratio": ratio, "correlation": 0.5, "deployed": {"accuracy": 0.9}}


@pytest.mark.parametrize(
    ("expected", "ratio", "collapsed"), [(2.9, 0.005, True), (400, 0.61, True), (3.0, 0.6, False), (3.0, 0.005, False)]
)
def test_a_training_has_collapsed_when_next_to_nothing_or_most_is_kept(
    expected: float, ratio: float, collapsed: bool
) -> None:
    sweep = results_of({job.key: sweep_of(expected, ratio) for job in JOBS["advantages"]}).sweep
    assert (sweep["collapsed"] == collapsed).all()


def test_a_weight_is_stable_where_no_seed_collapsed() -> None:
    kept = {}
    for job in JOBS["advantages"]:
        strategy, weight = job.tags["advantage"], job.tags["compression_weight"]
        dead = strategy == "by_factor" and job.tags["seed"] == 1 and weight >= 1
        ratio = 0.001 if dead else 0.1 / weight**0.2
        # on one curve, but for by_factor, 2 points above it
        share = 0.9 + 0.1 * np.log10(ratio) + 0.02 * (strategy == "by_factor")
        kept[job.key] = {**sweep_of(576 * ratio, ratio), "deployed": {"accuracy": share}}
    results = results_of(kept)
    stable = results.stable_weights()
    weights = RECIPE["experiments"]["advantages"][0]["grid"]["compression_weight"]
    assert stable["by_factor"] == stable["by_factor (scaled)"] == sum(weight < 1 for weight in weights)
    assert stable["leave_one_out"] == stable["by_action (scaled)"] == len(weights)
    above = results.above_curve()
    assert above["by_factor"].value - above["joint"].value == pytest.approx(0.02, abs=0.005)
    found = results.best_split()
    assert found is not None and found[1].startswith("by_factor")
    assert found[2].value == pytest.approx(0.02, abs=0.005)
    assert found[0] == 5  # but for leave_one_out and joint, and what is one of them by definition


# ---- All of it


@pytest.fixture(scope="module")
def small_study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Its clip is made here, and is what its recipe names."""
    folder = tmp_path_factory.mktemp("study")
    readers = {}
    for number, name in enumerate(READERS):
        readers[name] = folder / f"{name}.safetensors"
        tiny_reader(number, token_width=8 + number, layers=1).save(readers[name])
    clip = folder / "clip.mp4"
    write_clip(clip)
    media = {**QUICK["media"], "name": clip.name, "identity": sha256_of(clip), "source": "this test"}
    sizes = {"retentions": [0.05], "few_retentions": [0.05], "test_videos": dict.fromkeys(QUICK["test_videos"], 4)}
    experiments = dict(QUICK["experiments"])
    (sweep,) = experiments["advantages"]
    experiments["advantages"] = [{**sweep, "grid": {**sweep["grid"], "compression_weight": [0.5]}}]
    experiments["curriculum"] = experiments["curriculum"][1:]
    recipe = {**QUICK, **sizes, "media": media, "experiments": experiments}
    return Study(recipe, readers, clip, folder / "results", folder / "docs", CLEAN)


def elsewhere(study: Study, folder: Path, **changes: Any) -> Study:
    """The same with the results there are, in a place of its own."""
    shutil.copytree(study.results, folder / "results")
    return replace(study, results=folder / "results", docs=folder / "docs", **changes)


@pytest.fixture(scope="module")
def whole_study(small_study: Study) -> Study:
    """Run from start to finish."""
    assert small_study.run(list(RECIPE["experiments"]), workers=1) == []
    return small_study


def test_all_of_it_once(whole_study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    written = {path.name for path in whole_study.report()}
    figures = {f"results-{name}.png" for name in ("retention", "needed", "state", "count", "advantages")}
    assert written == {"results.md", "results-tasks.md", *figures}
    text = (whole_study.docs / "results.md").read_text()
    assert "Not run" not in text and "nan" not in text and "\n\n\n" not in text and "**This document" not in text
    assert text.count("\n## ") == 13 and text.count("\n### Split ") == 6 and text.count("\n### Tower ") == 4
    assert whole_study.recipe["media"]["identity"] in text and "clip.mp4" in text and "commit 0123456789." in text
    assert (whole_study.docs / "results-tasks.md").read_text().count("\n## Split ") == 6
    # nothing is run again; what is lost is
    capsys.readouterr()
    assert whole_study.run(["full"], workers=1) == []
    assert "0 jobs to run, 6 have" in capsys.readouterr().out
    next(whole_study.results.glob("full-*.json")).unlink()
    assert whole_study.run(list(RECIPE["experiments"]), workers=1) == []
    assert "1 jobs to run" in capsys.readouterr().out
    whole_study.report()
    assert (whole_study.docs / "results.md").read_text() == text


def test_results_of_other_code_are_stale_and_make_no_document(
    whole_study: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = elsewhere(whole_study, tmp_path, code=replace(CLEAN, hash="other"))
    with pytest.raises(StudyError, match=r"not written: \d+ results are missing, of other code, .* \(full plain, "):
        study.report()
    assert not study.docs.exists()
    assert study.run(["full"], workers=1) == []
    said = capsys.readouterr().out
    assert "6 jobs to run, 0 have" in said and "are of other code or parameters and not used" in " ".join(said.split())
    assert "that is not in the history (method plain random" in study.lacking()
    study.report(partial=True)
    text = (study.docs / "results.md").read_text()
    assert (
        "**This document is incomplete: " in text and "results are missing, of other code" in text.partition("\n## ")[0]
    )
    assert "Not run: of policy, 0 of 1 results are there." in text and "by the same code, hash other. 6 jobs" in text
    assert text.count("\n## ") == 13


def test_a_missing_result_makes_no_document(whole_study: Study, tmp_path: Path) -> None:
    study = elsewhere(whole_study, tmp_path)
    next(study.results.glob("counted-*.json")).unlink()
    with pytest.raises(StudyError, match=r"not written: 1 results are missing, .* \(counted .*\) \(--partial writes"):
        study.report()
    assert not study.docs.exists()


def test_code_that_is_not_committed_does_not_run_or_is_told_at_the_top(whole_study: Study, tmp_path: Path) -> None:
    study = elsewhere(whole_study, tmp_path, code=replace(CLEAN, changed=("evaluation/work.py", "score_ext/ops.py")))
    for refused in (lambda: study.run(["full"]), study.report):
        with pytest.raises(StudyError, match=r"2 files differ from commit 0123456789: evaluation/work\.py, \.\.\."):
            refused()
    next(study.results.glob("full-*.json")).unlink()
    allowed = replace(study, allow_dirty=True)
    assert allowed.run(list(RECIPE["experiments"]), workers=1) == []
    allowed.report()
    top = (study.docs / "results.md").read_text().partition("\n## ")[0]
    assert "Made by code that is not in the history. Different from the commit: evaluation/work.py, score_ext" in top
    # at a clean commit such a result does not count
    with pytest.raises(StudyError, match=r"not written: 1 results are .* of code that is not in the history \(full "):
        replace(study, code=CLEAN).report()


def test_a_change_of_code_under_a_run_ends_it(small_study: Study, checkout: Path) -> None:
    code = Code.of(checkout)
    (checkout / "score_ext/ops.py").write_text("changed")
    study = replace(small_study, results=checkout / "kept", docs=checkout / "docs", code=code)
    with pytest.raises(StudyError, match="the code was changed while jobs ran"):
        study.run(["full"], workers=1)
    assert not study.results.exists()


def test_footage_that_is_absent_or_another_is_an_error(small_study: Study, tmp_path: Path) -> None:
    study = replace(small_study, results=tmp_path / "results", docs=tmp_path / "docs")
    sha256 = study.recipe["media"]["identity"]
    wanted = rf"the footage must be clip\.mp4 with SHA-256 {sha256} \(this test\), but "
    other = tmp_path / "other.mp4"
    other.write_bytes(b"another")
    for footage, said in (
        (tmp_path / "gone.mp4", r".*gone\.mp4 cannot be read .*: give it with --media PATH"),
        (other, rf".*other\.mp4 has SHA-256 {sha256_of(other)}: give it with --media PATH"),
    ):
        with pytest.raises(StudyError, match=wanted + said):
            replace(study, media=footage).run(["full"], workers=1)
    assert not study.results.exists()


def test_a_failed_job_is_told_and_its_result_missing(small_study: Study, tmp_path: Path) -> None:
    readers = {**small_study.readers, "shipped": tmp_path / "shipped.safetensors"}
    readers["shipped"].write_bytes(b"no weights")
    study = replace(small_study, readers=readers, results=tmp_path / "results", docs=tmp_path / "docs")
    failed = study.run(["full"], workers=1)
    assert len(failed) == 6 and all("shipped.safetensors" in ended.error for ended in failed if ended.error)
    study.report(partial=True)
    assert "Not run: of full, 0 of 6 results are there." in (study.docs / "results.md").read_text()


def test_results_of_the_first_release_are_readable_and_not_used(small_study: Study) -> None:
    study = replace(small_study, results=ROOT / "evaluation" / "results")
    with pytest.raises(StudyError, match=r"not written: \d+ results are missing"):
        study.report()


def test_the_command_says_what_is_wrong_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command.Code, "of", lambda: CLEAN)
    (tmp_path / "other.mp4").write_bytes(b"another")
    arguments = ["--quick", "--only", "full", "--footage", str(tmp_path / "other.mp4")]
    monkeypatch.setattr(sys, "argv", ["evaluation/__main__.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        run_module(command.main)
    said = capfd.readouterr().err
    assert said.startswith("evaluation: error: the footage must be bigbuckbunny.mp4 with SHA-256 f25b31f1")
    assert said.count("\n") == 1


# ---- The weights that come with the package


def test_other_weights_of_the_package_are_other_work() -> None:
    jobs = Plan(load_recipe("composite"), {"shipped": "shipped@0"}, "code").experiments["methods"]
    (own,) = (job for job in jobs if job.tags["method"] == "pretrained")
    assert own.parameters["method"] == fingerprint("pretrained", sha256_of(PRETRAINED / "model.safetensors"))
