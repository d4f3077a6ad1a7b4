"""What is read of lmms-eval's files, and what of them does not count."""

from __future__ import annotations

from pathlib import Path

import pytest
from lmms_eval_files import write_results

from score_video.benchmarks.results import read_results
from score_video.errors import ScoreError


def test_samples(tmp_path: Path) -> None:
    write_results(tmp_path, [1, 0.5, 0], 10, videos=["a", "b", "a"])
    task = read_results(tmp_path).tasks["own"]
    assert [sample.score for sample in task.samples.values()] == [1.0, 0.5, 0.0]
    assert [sample.video for sample in task.samples.values()] == ["a", "b", "a"]
    assert {(sample.kept, sample.tokens) for sample in task.samples.values()} == {(10, 100)}
    assert task.metrics == {"accuracy,none": 0.5}
    assert task.scored


def test_without_videos_each_question_is_about_its_own(tmp_path: Path) -> None:
    write_results(tmp_path, [1, 0])
    samples = read_results(tmp_path).tasks["own"].samples
    assert [sample.video for sample in samples.values()] == ["0", "1"]
    assert {sample.kept for sample in samples.values()} == {None}


@pytest.mark.parametrize(
    ("logged", "score"),
    [
        (True, 1.0),
        ({"pred_answer": "B", "answer": "B", "score": 0.25}, 0.25),  # Video-MME
        ({"pred_answer": "B", "answer": "B"}, 1.0),  # MLVU
        ({"answer": "C", "parsed_pred": "B"}, 0.0),  # LongVideoBench
        ({"pred_answer": "(B)", "gt_answer": "B", "score": 1}, 1.0),  # MVBench
        ({"pred": 3, "ground_truth": "3"}, 1.0),  # EgoSchema
        ({"judge": "?"}, None),
        ("B", None),
    ],
)
def test_scores_of_the_fields_tasks(logged: object, score: float | None, tmp_path: Path) -> None:
    write_results(tmp_path, [logged])
    (sample,) = read_results(tmp_path).tasks["own"].samples.values()
    assert sample.score == score


def test_runs_that_do_not_count(tmp_path: Path) -> None:
    with pytest.raises(ScoreError, match="lmms-eval wrote no results"):
        read_results(tmp_path)
    write_results(tmp_path, [1, 0, 1], 10, logged=2)
    with pytest.raises(ScoreError, match=r"samples_own\.jsonl: has 2 samples of 3"):
        read_results(tmp_path)


@pytest.mark.parametrize("text", ['{"results": {"own"', "[]", '{"n-samples": {"own": {}}}', '{"n-samples": 3}'])
def test_half_written_results(text: str, tmp_path: Path) -> None:
    write_results(tmp_path, [1]).write_text(text, encoding="utf-8")
    with pytest.raises(ScoreError, match="results are not whole"):
        read_results(tmp_path)


def test_results_of_no_task(tmp_path: Path) -> None:
    write_results(tmp_path, [1]).write_text('{"results": {}, "n-samples": {}}', encoding="utf-8")
    with pytest.raises(ScoreError, match="results of no task"):
        read_results(tmp_path)


def test_half_a_line_of_samples(tmp_path: Path) -> None:
    log = write_results(tmp_path, [1, 0]).with_name("20261126_1_samples_own.jsonl")
    log.write_text(log.read_text(encoding="utf-8")[:-20], encoding="utf-8")
    with pytest.raises(ScoreError, match="results are not whole"):
        read_results(tmp_path)
