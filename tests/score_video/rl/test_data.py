"""Reading examples: every form of a row gives one schema, every mistake names its line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from score_video.rl.data import load_examples

ASKED: dict[str, Any] = {"question": "What moves?", "answer": "a dog"}


@pytest.fixture(autouse=True)
def media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is not the current one, with a file for each kind."""
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"whatever: nobody reads it here")
    Image.new("RGB", (4, 3), (255, 0, 0)).save(folder / "red.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return folder


def write(folder: Path, *rows: object) -> Path:
    path = folder / "train.jsonl"
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_every_form_of_a_row_has_one_schema(media: Path) -> None:
    path = write(
        media,
        {"video": "a.mp4", **ASKED},
        "",
        {"image": "red.png", "id": "r", **ASKED, "options": ["a dog", "a cat"]},
        {"video": str(media / "a.mp4"), "questions": [ASKED, {**ASKED, "options": ["a dog", "x"]}]},
    )
    examples = load_examples(path)
    one = {**ASKED, "options": []}
    assert examples.column_names == ["id", "video", "image", "questions"]
    assert examples[0] == {"id": "1", "video": str(media / "a.mp4"), "image": None, "questions": [one]}
    assert examples[1]["id"] == "r"
    assert examples[1]["video"] is None
    assert examples[1]["image"].getpixel((0, 0)) == (255, 0, 0)
    assert examples[1]["questions"][0]["options"] == ["a dog", "a cat"]
    assert examples[2]["id"] == "4"  # the line, blank ones counted
    assert [q["options"] for q in examples[2]["questions"]] == [[], ["a dog", "x"]]


@pytest.mark.parametrize("form", ["parquet", "saved"])
def test_a_data_set_reads_as_the_file_it_was_made_of(media: Path, form: str) -> None:
    rows = load_examples(
        write(media, {"video": "a.mp4", **ASKED}, {"image": "red.png", **ASKED, "options": ["a dog", "b"]})
    )
    with_more = rows.add_column("licence", ["x", "y"])
    if form == "parquet":
        source = media / "data.parquet"
        with_more.to_parquet(str(source))
    else:
        source = media / "saved"
        with_more.save_to_disk(str(source))
    again = load_examples(source)
    assert again.features == rows.features
    assert again[0] == rows[0]
    assert again[1]["image"].getpixel((0, 0)) == (255, 0, 0)
    assert again[1]["questions"] == rows[1]["questions"]


def test_flat_columns_of_a_data_set(media: Path) -> None:
    table = datasets.Dataset.from_list([{"video": "a.mp4", **ASKED, "options": None}])
    table.to_parquet(str(media / "flat.parquet"))
    (example,) = load_examples(media / "flat.parquet")
    assert example["video"] == str(media / "a.mp4")
    assert example["questions"] == [{**ASKED, "options": []}]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"video": "a.mp4", "question": "?"}, "'answer' is missing"),
        ({"video": "a.mp4", "answer": "?"}, "'question' is missing"),
        (ASKED, "must have either 'video' or 'image', got neither"),
        ({**ASKED, "video": "a.mp4", "image": "red.png"}, "got video and image"),
        ({**ASKED, "video": 3}, "'video' must be a string that is not empty, got 3"),
        ({**ASKED, "video": "no.mp4"}, "video .*no.mp4: no such file"),
        ({**ASKED, "image": "no.png"}, "image .*no.png: no such file"),
        ({**ASKED, "video": "a.mp4", "answer": ["a"]}, r"'answer' must be a string that is not empty, got \[\"a\"\]"),
        ({**ASKED, "video": "a.mp4", "answer": " "}, "'answer' must be a string that is not empty"),
        ({**ASKED, "video": "a.mp4", "id": 7}, "'id' must be a string"),
        ({**ASKED, "video": "a.mp4", "options": "a dog"}, "'options' must be a list of strings, got \"a dog\""),
        ({**ASKED, "video": "a.mp4", "options": ["a dog", 1]}, "'options' must be a list of strings"),
        ({**ASKED, "video": "a.mp4", "options": ["a dog"]}, "at least two different strings"),
        ({**ASKED, "video": "a.mp4", "options": ["a dog", "b", "b"]}, "at least two different strings"),
        (
            {**ASKED, "video": "a.mp4", "options": ["b", "c"]},
            r"must be one of the options \[\"b\", \"c\"\], got \"a dog\"",
        ),
        ({**ASKED, "video": "a.mp4", "questions": [ASKED]}, "either 'questions' or 'question', got both"),
        ({"video": "a.mp4", "questions": []}, r"'questions' must be a list of at least one object, got \[\]"),
        ({"video": "a.mp4", "questions": ["?"]}, "question 1 must be an object"),
        ({"video": "a.mp4", "questions": [ASKED, {"question": "?"}]}, "question 2: 'answer' is missing"),
        (
            {"video": "a.mp4", "questions": [{**ASKED, "awnser": "?"}]},
            "question 1: unknown key 'awnser'; did you mean 'answer'",
        ),
        ({**ASKED, "vidoe": "a.mp4"}, "unknown key 'vidoe'; did you mean 'video'"),
        ({**ASKED, "video": "a.mp4", "zzz": 1}, "unknown key 'zzz'; there are video, image"),
        ([1], r"must be a JSON object, got \[1\]"),
        ("{'video': 1}", "column 2: not JSON"),
        ('{"video": "a.mp4"', "column 18: not JSON"),
    ],
)
def test_mistakes_name_the_line(media: Path, row: object, says: str) -> None:
    path = write(media, {"video": "a.mp4", **ASKED}, row)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"train\.jsonl, line 2\b.*{says}"):
        load_examples(path)


def test_other_files_are_refused(media: Path) -> None:
    with pytest.raises(ValueError, match="is empty"):
        load_examples(write(media, "", "  "))
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl: no such file"):
        load_examples(media / "none.jsonl")
    with pytest.raises(FileNotFoundError, match=r"none\.parquet: no such file"):
        load_examples(media / "none.parquet")
    with pytest.raises(ValueError, match=r"must be a file \(\.jsonl, \.json, \.csv, \.parquet\)"):
        load_examples(media / "red.png")
    (media / "latin.jsonl").write_bytes(b'{"video": "\xe9"}')
    with pytest.raises(ValueError, match="line 1: not UTF-8 at byte 12"):
        load_examples(media / "latin.jsonl")
    table = datasets.Dataset.from_list([{"video": "a.mp4", "question": "?"}])
    table.to_parquet(str(media / "bad.parquet"))
    with pytest.raises(ValueError, match=r"bad\.parquet, row 1: 'answer' is missing"):
        load_examples(media / "bad.parquet")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["video", "image", "question", "answer", "options", "questions", "id"]), inner
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(row=JSON)
def test_any_json_is_read_or_refused_by_its_line(tmp_path_factory: pytest.TempPathFactory, row: object) -> None:
    path = tmp_path_factory.mktemp("any") / "any.jsonl"
    path.write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises((ValueError, FileNotFoundError)) as error:  # no file is there, so that none is right
        load_examples(path)
    assert re.search(r"any\.jsonl, line 1", str(error.value))
