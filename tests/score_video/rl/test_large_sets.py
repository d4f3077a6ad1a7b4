"""Sets of examples that do not fit into memory: read row by row, kept on disk, trained on as others are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.toy import ToyEnvironment, trainer, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from test_resume import equal, in_a_child, killed_when

from score_video.errors import ScoreError
from score_video.rl import arrow_rows, json_list
from score_video.rl.data import MixedExamples, OneQuestionEach, load_examples
from score_video.rl.environment import EncodedBatch, Example
from score_video.rl.json_list import elements_of

# ---- JSON, a piece at a time

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=9,
)


@settings(deadline=None)
@given(
    content=st.lists(JSON, max_size=5) | st.dictionaries(st.text(max_size=3), JSON, max_size=4),
    chunk=st.integers(1, 9),
    indent=st.none() | st.integers(0, 2),
    ascii_only=st.booleans(),
)
def test_elements_are_those_of_the_whole_whatever_is_read_at_a_time(
    tmp_path_factory: pytest.TempPathFactory, content: Any, chunk: int, indent: int | None, ascii_only: bool
) -> None:
    path = tmp_path_factory.mktemp("json") / "rows.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content, indent=indent, ensure_ascii=ascii_only).encode() + b" \n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_list, "_CHUNK", chunk)
        assert [*elements_of(path)] == (list(content.values()) if isinstance(content, dict) else content)


WRONG = [
    '[{"a": 1}\n, {"a" 2}]',
    "[1, 2\n3]",
    '[{"a": "x',
    '[{"a": 1},\n  ]',
    "[1, nul]",
    '{"a": 1, 2: 3}',
    '{"a": [1}',
    '{"a" 1}',
    "[1]\n\n  x",
    "[",
    "",
    '["\\u12',
    '["a\tb"]',
]


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.parametrize("chunk", [1, 5, 2**20])
def test_what_is_no_json_is_said_with_the_place_that_python_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, chunk: int
) -> None:
    monkeypatch.setattr(json_list, "_CHUNK", chunk)
    path = tmp_path / "rows.json"
    path.write_text(text)
    with pytest.raises(json.JSONDecodeError) as python:
        json.loads(text)
    line = f", line {python.value.lineno}" if python.value.lineno > 1 else ""
    with pytest.raises(ScoreError) as ours:
        [*elements_of(path)]
    assert str(ours.value).startswith(f"{path}{line}, column {python.value.colno}: not JSON (")


@pytest.mark.parametrize("chunk", [1, 3, 2**20])
def test_what_is_not_utf_8_is_said_with_its_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(json_list, "_CHUNK", chunk)
    path = tmp_path / "rows.json"
    path.write_bytes('["é", "'.encode() + b'\xe9"]')
    with pytest.raises(ScoreError, match="not UTF-8 at byte 9"):
        [*elements_of(path)]


# ---- Kept on disk


@pytest.fixture
def on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every set is larger than what may be in memory; where the files go."""
    monkeypatch.setattr(arrow_rows, "_IN_MEMORY", -1)
    monkeypatch.setattr(arrow_rows, "_ROWS", 5)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache" / "score-video"


def write(folder: Path, name: str, count: int, missing: Sequence[int] = ()) -> Path:
    (folder / "a.mp4").write_bytes(b"nobody reads it here")
    rows = [
        {
            "id": f"{number}",
            "video": "gone.mp4" if number in missing else "a.mp4",
            "questions": [{"question": f"{number}.{one}?", "answer": "yes"} for one in range(1 + number % 3)],
        }
        for number in range(count)
    ]
    path = folder / name
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_a_set_on_disk_is_that_in_memory(tmp_path: Path, on_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "train.jsonl", 23)
    mapped = load_examples(path)
    assert [Path(file["filename"]) for file in mapped.cache_files] == list(on_disk.iterdir())
    load_examples(path)
    assert len(list(on_disk.iterdir())) == 1  # the same file again
    each = OneQuestionEach(mapped)
    assert [example["questions"][0]["question"] for example in (each[n] for n in range(len(each)))] == [
        f"{number}.{one}?" for number in range(23) for one in range(1 + number % 3)
    ]
    assert each.origin(3)[1] == 2
    monkeypatch.setattr(arrow_rows, "_IN_MEMORY", 2**20)
    small = load_examples(path)
    assert small.cache_files == [] and small.features == mapped.features and small.to_list() == mapped.to_list()


def test_a_video_that_is_missing_names_its_row_and_leaves_no_file(tmp_path: Path, on_disk: Path) -> None:
    path = write(tmp_path, "train.jsonl", 23, missing=[17, 21])
    with pytest.raises(FileNotFoundError, match=r"train\.jsonl, line 18: video .*gone\.mp4: no such file"):
        load_examples(path)
    assert list(on_disk.iterdir()) == []
    with pytest.warns(
        UserWarning, match=r"2 rows are left out, without a video or image that is there; the first: .*line 18: video"
    ):
        assert len(load_examples(path, skip_missing=True)) == 21


class NumberedEnvironment(ToyEnvironment):
    """The toy world of rows of files: a video's tokens follow from the row's id."""

    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        return super().encode([{"number": int(example["id"]), "frames": 4} for example in examples])


def test_killed_and_resumed_on_mixed_sets_on_disk_it_ends_in_the_same_weights(tmp_path: Path, on_disk: Path) -> None:
    torch.set_num_threads(1)
    files = [write(tmp_path, name, count) for name, count in (("many.jsonl", 23), ("few.jsonl", 7))]

    def train(output: Path, resume: bool) -> dict[str, torch.Tensor]:
        data = MixedExamples(zip(map(load_examples, files), (1, 2), strict=True))
        run = trainer(output, NumberedEnvironment(), data, max_steps=12, save_steps=3)
        run.train(resume_from_checkpoint=resume)
        return weights(run.model)

    whole = train(tmp_path / "whole", False)
    assert in_a_child(lambda: killed_when(6, tmp_path / "killed", train))
    assert equal(train(tmp_path / "killed", True), whole)


LOAD = """
import sys, threading
import datasets
from score_video.rl.data import MixedExamples, OneQuestionEach, load_examples

def anonymous():  # bytes of memory that no file can be read into again
    with open("/proc/self/status") as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))

before, most, done = anonymous(), 0, threading.Event()
def watch():
    global most
    while not done.wait(0.005):
        most = max(most, anonymous())
watcher = threading.Thread(target=watch)
watcher.start()
examples = MixedExamples([(OneQuestionEach(load_examples(sys.argv[1])), 1.0)])
for number in range(0, len(examples), 7):
    examples[number]
done.set()
watcher.join()
print(len(examples), (most - before) // 2**20)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not say what memory is a file's")
@pytest.mark.parametrize("form", ["jsonl", "json", "parquet"])
def test_memory_does_not_grow_with_the_set(tmp_path: Path, form: str) -> None:
    """192 MiB of rows; 16 MiB of them, and what a reader of Parquet has in hand, may be in memory."""
    (tmp_path / "a.mp4").write_bytes(b"nobody reads it here")
    path, rows = tmp_path / f"data.{form}", 12288
    row = {"video": "a.mp4", "question": "?" * 16384, "answer": "yes"}
    if form == "parquet":
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        table = pa.Table.from_pylist([row] * 256)
        with pq.ParquetWriter(path, table.schema, use_dictionary=False, compression="none") as writer:
            for _ in range(rows // 256):
                writer.write_table(table)
    else:
        with path.open("w") as file:
            text = json.dumps(row)
            file.write("[" if form == "json" else "")
            for number in range(rows):
                file.write(f"{',' if number and form == 'json' else ''}{text}\n")
            file.write("]" if form == "json" else "")
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", LOAD, path], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found, grown = map(int, done.stdout.split())
    for written in [path, *(tmp_path / "cache").rglob("*.arrow")]:
        written.unlink()  # pytest keeps folders
    assert found == rows
    assert grown < 96, f"{grown} MiB"
