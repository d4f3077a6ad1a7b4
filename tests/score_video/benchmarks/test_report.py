"""What is made of results: paired differences, the retention that is needed, means beside published figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lmms_eval_files import write_results
from PIL import Image

from score_video.benchmarks.compare import panels
from score_video.benchmarks.markdown import markdown
from score_video.benchmarks.protocols import PROTOCOLS
from score_video.benchmarks.report import make_report
from score_video.benchmarks.results import Results, read_results
from score_video.benchmarks.runs import FULL, Run, Settings
from score_video.drawing.accuracy_panels import draw_accuracy_panels

SETTINGS = Settings(("own",))
WHOLE, SOME, LESS = Run("m", FULL, None), Run("m", "evs", 0.1), Run("m", "evs", 0.05)


@pytest.fixture
def results(tmp_path: Path) -> dict[Run, Results]:
    write_results(tmp_path / "full", [1, 1, 0, 1])
    write_results(tmp_path / "some", [1, 0, 0, 1], 10)
    write_results(tmp_path / "less", [1, 0, 0, 0], 5)
    return {run: read_results(tmp_path / name) for run, name in ((WHOLE, "full"), (SOME, "some"), (LESS, "less"))}


def test_paired_differences(results: dict[Run, Results]) -> None:
    report = make_report([LESS, SOME, WHOLE], results, {}, SETTINGS)
    whole, row, less = report["rows"]
    assert (whole["accuracy"], whole["difference"], whole["kept"]) == (0.75, None, None)
    assert (row["accuracy"], row["difference"], row["kept"], row["tokens"]) == (0.5, -0.25, 10, 100)
    assert row["share_of_full"] == pytest.approx(2 / 3)
    assert row["difference_error"] == pytest.approx(0.25)  # sd of 0, -1, 0, 0 is 0.5; by the root of 4
    assert row["milliseconds"] == {"read": 2.0, "prefill": 8.0}
    assert row["samples"]["1"] == {"score": 0.0, "kept": 10, "tokens": 100}
    assert less["retention"] == 0.05
    json.dumps(report)
    assert "| m | own | evs | 10% | 10 | 50.0 ± 28.9 | -25.0 ± 25.0 | 66.7 | 2.0 |" in markdown(report)


def test_questions_of_one_video_are_not_independent(tmp_path: Path) -> None:
    """Two videos whose questions go the same way: an error as of two, not of four."""
    write_results(tmp_path / "full", [1, 1, 1, 1], videos=["a", "a", "b", "b"])
    write_results(tmp_path / "some", [0, 0, 1, 1], 10, videos=["a", "a", "b", "b"])
    results = {WHOLE: read_results(tmp_path / "full"), SOME: read_results(tmp_path / "some")}
    row = make_report([WHOLE, SOME], results, {}, SETTINGS)["rows"][1]
    assert (row["videos"], row["questions"]) == (2, 4)
    assert row["difference_error"] == pytest.approx(0.5)  # sd of -1, 0 is 0.707; by the root of 2


def test_retention_needed(results: dict[Run, Results]) -> None:
    """99% of 3 of 4 lies between 10%, where half are right, and 100%; linear in the logarithm."""
    (needed,) = make_report([WHOLE, SOME, LESS], results, {}, SETTINGS)["needed"]
    assert needed["value"] == pytest.approx(0.1 ** (1 - (0.99 * 0.75 - 0.5) / 0.25))
    assert (needed["compressor"], needed["least"]) == ("evs", 0.05)
    assert "needed for 99% of full" in markdown(make_report([WHOLE, SOME], results, {}, SETTINGS))


def test_errors_are_no_scores(results: dict[Run, Results]) -> None:
    report = make_report([WHOLE, SOME], {WHOLE: results[WHOLE]}, {SOME: "it crashed"}, SETTINGS)
    assert [row["compressor"] for row in report["rows"]] == [FULL]
    assert "Failed: it crashed" in markdown(report)


def test_beside_published_figures(tmp_path: Path) -> None:
    protocol = PROTOCOLS["llava-onevision-7b-32"]
    whole, some = Run(protocol.model, FULL, None), Run(protocol.model, "divprune", 0.1)
    results = {}
    for run, kept, wrong in ((whole, None, 1), (some, 10, 2)):
        tasks = {}
        for number, task in enumerate(protocol.tasks):
            scores = [0] * wrong + [1] * (4 - wrong)
            write_results(tmp_path / run.compressor / str(number), scores, kept, task=task)
            tasks |= read_results(tmp_path / run.compressor / str(number)).tasks
        results[run] = Results(tasks, {})
    report = make_report([whole, some], results, {}, Settings(protocol.tasks), protocol)
    assert report["averaged"] == ("longvideobench_val_v", "mlvu_dev", "mlvu_test", "videomme")
    assert report["means"][1]["share_of_full"] == pytest.approx(2 / 3)
    text = markdown(report)
    assert "| divprune |  |  |  | 66.7 |" in text  # at 25, 20, 15 and 10%
    assert "| CaCoVID (published) | 98.9 | 98.1 | 97.5 | 96.1 |" in text
    assert "arXiv 2602.01649" in text


def test_a_group_counts_as_the_mean_of_its_tasks(tmp_path: Path) -> None:
    tasks = {}
    for name, scores in (("a", [1, 0]), ("b", [1, 1, 1, 1]), ("own", [0])):
        write_results(tmp_path / name, scores, task=name)
        tasks |= read_results(tmp_path / name).tasks
    report = make_report([WHOLE], {WHOLE: Results(tasks, {"both": ("a", "b")})}, {}, Settings(("both", "own")))
    assert report["means"][0]["accuracy"] == pytest.approx((0.75 + 0) / 2)


def test_picture(results: dict[Run, Results], tmp_path: Path) -> None:
    (panel,) = panels(make_report([WHOLE, SOME, LESS], results, {}, SETTINGS)["rows"])
    assert (panel.title, panel.full) == ("m, own", 0.75)
    assert [(x, y) for x, y, _ in panel.lines["evs"]] == [(0.1, 0.5), (0.05, 0.25)]
    draw_accuracy_panels(tmp_path / "report.png", [panel] * 4)
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.width > picture.height > 500
