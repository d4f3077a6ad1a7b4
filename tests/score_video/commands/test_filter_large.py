"""``score data filter`` of sets that do not fit into memory, killed in the midst and called again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers import blind
from helpers.blind import BlindEnvironment

from score_video.commands import filter as filter_command
from score_video.errors import ScoreError


def write(path: Path, rows: int, text: str = "?") -> int:
    """One to three questions a row, of which each third is known. Returns how many they are."""
    (path.parent / "a.mp4").write_bytes(b"nobody reads it here")
    number = 0
    with path.open("w") as file:
        for row in range(rows):
            asked = []
            for _ in range(1 + row % 3):
                asked.append({"question": f"{number} {text}", "answer": "known" if number % 3 == 0 else "unknown"})
                number += 1
            file.write(json.dumps({"id": str(row), "video": "a.mp4", "questions": asked}) + "\n")
    return number


def in_a_process(*arguments: Any, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_DATASETS_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(blind.__file__), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what memory is a file's")
def test_memory_does_not_grow_with_the_set(tmp_path: Path) -> None:
    """192 MiB of rows; 16 MiB of them may be in memory."""
    source, output = tmp_path / "train.jsonl", tmp_path / "left.jsonl"
    asked = write(source, 6144, "?" * 16384)
    done = in_a_process(source, output, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    grown, found = map(int, done.stdout.split())
    left = sum(len(json.loads(line)["questions"]) for line in output.open())
    for written in [source, output, *(tmp_path / "cache").rglob("*.arrow")]:
        written.unlink()  # pytest keeps folders
    assert (found, left) == (asked, asked - -(-asked // 3))
    assert grown < 96, f"{grown} MiB"


def test_killed_and_called_again_it_goes_on(tmp_path: Path) -> None:
    source, output = tmp_path / "train.jsonl", tmp_path / "left.jsonl"
    asked = write(source, 50)
    assert in_a_process(source, output, 41, cache=tmp_path / "cache").returncode == -9
    unfinished = tmp_path / "left.jsonl.unfinished"
    assert unfinished.is_file() and not output.exists()
    with unfinished.open("ab") as file:
        file.write(b'[null, "answe')  # as far as a line had got
    done = in_a_process(source, output, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) == asked - 40
    whole = tmp_path / "whole.jsonl"
    filter_command.run(str(source), BlindEnvironment(), whole)  # type: ignore[arg-type]
    assert output.read_bytes() == whole.read_bytes()
    assert sorted(file.name for file in tmp_path.glob("*.jsonl*")) == ["left.jsonl", "train.jsonl", "whole.jsonl"]


@pytest.mark.parametrize("change", ["model", "questions"])
def test_what_was_asked_of_another_model_or_set_is_asked_again(tmp_path: Path, change: str) -> None:
    source, output = tmp_path / "train.jsonl", tmp_path / "left.jsonl"
    write(source, 20)
    assert in_a_process(source, output, 17, cache=tmp_path / "cache").returncode == -9
    asked = write(source, 20, "another?" if change == "questions" else "?")
    environment: Any = BlindEnvironment(name="another" if change == "model" else "blind")
    filter_command.run(str(source), environment, output)
    assert environment.asked == asked


def test_a_row_that_is_wrong_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "train.jsonl"
    write(source, 20)
    with source.open("a") as file:
        file.write('{"video": "a.mp4", "question": "?"}\n')
    environment: Any = BlindEnvironment()
    with pytest.raises(ScoreError, match=r"train\.jsonl, line 21: 'answer' is missing"):
        filter_command.run(str(source), environment, tmp_path / "left.jsonl")
    assert environment.asked == 0
    assert [file.name for file in tmp_path.glob("*.jsonl*")] == ["train.jsonl"]


def test_missing_videos_are_skipped_if_asked(tmp_path: Path) -> None:
    source, output = tmp_path / "train.jsonl", tmp_path / "sub" / "left.jsonl"
    output.parent.mkdir()
    write(source, 4)
    with source.open("a") as file:
        file.write('{"video": "gone.mp4", "question": "?", "answer": "unknown"}\n')
    environment: Any = BlindEnvironment()
    with pytest.raises(FileNotFoundError, match=r"line 5: video .*gone\.mp4"):
        filter_command.run(str(source), environment, output)
    with pytest.warns(UserWarning, match="1 rows are left out"):
        found = filter_command.run(str(source), environment, output, tmp_path / "gone.jsonl", skip_missing=True)
    assert found == filter_command.Filtered(rows=4, questions=7, kept_rows=2, kept_questions=4, unreadable=0)
    for path in (output, tmp_path / "gone.jsonl"):
        for line in path.open():
            assert (path.parent / json.loads(line)["video"]).samefile(tmp_path / "a.mp4")
