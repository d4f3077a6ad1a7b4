"""The field's files: a small one of each shape, made by hand, and what becomes of it; what is wrong names its row."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from score_video.rl.data import MixedExamples, OneQuestionEach, load_examples
from score_video.rl.formats import FORMATS, find_format, multiple_choice, written_choice

LETTER = "Answer with the letter of the right option."


@pytest.fixture(autouse=True)
def media(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with files to name, in the places where the field has them."""
    for name in ("a.mp4", "videos/7.mp4", "video/b.mkv", "data/c.webm", "e.mp4"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"nobody reads it here")
    Image.new("RGB", (4, 3), (255, 0, 0)).save(tmp_path / "red.png")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def choice(question: str, *options: str, right: str) -> dict[str, Any]:
    letters = list("ABCDEFGH"[: len(options)])
    lines = [f"{letter}. {option}" for letter, option in zip(letters, options, strict=True)]
    return {"question": "\n".join([question, *lines, LETTER]), "answer": right, "options": letters}


def open_ended(question: str, answer: str) -> dict[str, Any]:
    return {"question": question, "answer": answer, "options": []}


IN_TEXT = "Which?\nA. a cup\nB. a book\nAnswer with the letter."
ROWS: list[tuple[str, dict[str, Any], str, str, list[dict[str, Any]]]] = [
    (
        "LLaVA-Video-178K",
        {
            "id": "q1",
            "video": "a.mp4",
            "data_source": "x",
            "conversations": [
                {"from": "system", "value": "be kind"},
                {"from": "human", "value": f"<image>\n{IN_TEXT}"},
                {"from": "gpt", "value": "B. a book"},
                {"from": "human", "value": "And then?"},
                {"from": "gpt", "value": "A dog runs."},
            ],
        },
        "a.mp4",
        "q1",
        [{"question": IN_TEXT, "answer": "B", "options": ["A", "B"]}, open_ended("And then?", "A dog runs.")],
    ),
    (
        "Video-R1",
        {
            "problem_id": 4,
            "problem": "Which one?",
            "data_type": "video",
            "problem_type": "multiple choice",
            "options": ["A. cup", "B. book", "C. hat"],
            "solution": "<answer>C</answer>",
            "path": "./a.mp4",
            "data_source": "x",
        },
        "a.mp4",
        "4",
        [choice("Which one?", "cup", "book", "hat", right="C")],
    ),
    (
        "Video-R1, numerical",
        {
            "problem": "How many?",
            "data_type": "video",
            "options": [],
            "solution": "<answer> 3 </answer>",
            "path": "a.mp4",
        },
        "a.mp4",
        "1",
        [open_ended("How many?", "3")],
    ),
    (
        "EasyR1",
        {"problem": "<video>What falls?", "answer": "a cup", "videos": ["a.mp4"], "images": []},
        "a.mp4",
        "1",
        [open_ended("What falls?", "a cup")],
    ),
    (
        "Video-MME",
        {
            "videoID": "7",
            "question_id": "7-1",
            "question": "Who?",
            "options": ["A. I", "B. you"],
            "answer": "B",
            "duration": "short",
        },
        "videos/7.mp4",
        "7-1",
        [choice("Who?", "I", "you", right="B")],
    ),
    (
        "MVBench",
        {"video": "a.mp4", "question": "Where?", "candidates": ["here", "there"], "answer": "here", "start": 1},
        "a.mp4",
        "1",
        [choice("Where?", "here", "there", right="A")],
    ),
    (
        "NExT-QA",
        {
            "video": 7,
            "frame_count": 9,
            "question": "why",
            "answer": 3,
            "qid": 5,
            "type": "CW",
            **{f"a{n}": f"r{n}" for n in range(5)},
        },
        "videos/7.mp4",
        "5",
        [choice("why", "r0", "r1", "r2", "r3", "r4", right="D")],
    ),
    (
        "EgoSchema",
        {"question_idx": 2, "video_idx": "b", "question": "what", "option": ["A. x", "B. y", "C. z"], "answer": "2"},
        "video/b.mkv",
        "2",
        [choice("what", "x", "y", "z", right="C")],
    ),
    (
        "PerceptionTest",
        {
            "video_name": "c",
            "question": "which",
            "options": ["p", "q", "r"],
            "question_id": 11,
            "answer_id": 1,
            "area": "physics",
        },
        "data/c.webm",
        "11",
        [choice("which", "p", "q", "r", right="B")],
    ),
    (
        "MLVU",
        {"video_name": "e.mp4", "question": "Which?\n(A) one\n(B) two", "answer": "(B) two", "task_type": "count"},
        "e.mp4",
        "1",
        [{"question": "Which?\n(A) one\n(B) two", "answer": "B", "options": ["A", "B"]}],
    ),
    (
        "TempCompass",
        {"video_id": "e", "question": "Is it so?\nA. yes\nB. no", "answer": "A. yes", "dim": "speed"},
        "e.mp4",
        "1",
        [{"question": "Is it so?\nA. yes\nB. no", "answer": "A", "options": ["A", "B"]}],
    ),
]


@pytest.mark.parametrize("form", ["json", "jsonl", "by name", "parquet"])
@pytest.mark.parametrize(("name", "row", "video", "id", "questions"), ROWS, ids=[row[0] for row in ROWS])
def test_each_shape(
    media: Path, name: str, row: dict[str, Any], video: str, id: str, questions: list[dict[str, Any]], form: str
) -> None:
    path = media / f"data.{'parquet' if form == 'parquet' else 'jsonl' if form == 'jsonl' else 'json'}"
    if form == "parquet":
        datasets.Dataset.from_list([row]).to_parquet(str(path))
    else:
        path.write_text(json.dumps({"json": [row], "jsonl": row, "by name": {"first": row}}[form]))
    (example,) = load_examples(path)
    assert example == {"id": id, "video": str(media / video), "image": None, "questions": questions}


def test_a_table_of_next_qa(media: Path) -> None:
    row = ROWS[6][1]
    with (media / "val.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerows([row, {**row, "answer": 0, "a0": 'a "cup", red'}])
    examples = load_examples(media / "val.csv")
    assert [example["questions"][0]["answer"] for example in examples] == ["D", "A"]
    assert 'A. a "cup", red\n' in examples[1]["questions"][0]["question"]
    (media / "val.csv").write_text("video,question\n7\n")
    with pytest.raises(ValueError, match=r"val\.csv, row 1: must have as many values"):
        load_examples(media / "val.csv")


def test_stills_of_llava_from_files_and_in_the_table(media: Path) -> None:
    talk = [{"from": "human", "value": "What?\n<image>"}, {"from": "gpt", "value": "red"}]
    (media / "stills.json").write_text(json.dumps([{"id": "s", "image": "red.png", "conversations": talk}]))
    (example,) = load_examples(media / "stills.json")
    assert example["image"].getpixel((0, 0)) == (255, 0, 0) and example["questions"] == [open_ended("What?", "red")]
    table = datasets.Dataset.from_list([{"image": str(media / "red.png"), "conversations": talk, "licence": "x"}])
    table = table.cast_column("image", datasets.Image()).map(lambda row: row)
    table.to_parquet(str(media / "stills.parquet"))
    (again,) = load_examples(media / "stills.parquet")
    assert again["image"].getpixel((0, 0)) == (255, 0, 0) and again["questions"] == example["questions"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"video": "a.mp4", "conversations": []}, "'conversations' must be a list of turns, got \\[\\]"),
        (
            {"video": "a.mp4", "conversations": [{"from": "gpt", "value": "x"}]},
            "turns must be from human and gpt by turns",
        ),
        ({"video": "a.mp4", "conversations": [{"value": 1}]}, "a turn must have 'from' and 'value'"),
        ({"conversations": ROWS[0][1]["conversations"]}, "must have either 'video' or 'image', got neither"),
        (
            {"video": ["a.mp4", "e.mp4"], "conversations": ROWS[0][1]["conversations"]},
            "'video' must be one file, got 2",
        ),
        ({**ROWS[1][1], "solution": "<answer>F</answer>"}, "must be the letter of one of 3 options, got 'F'"),
        ({**ROWS[4][1], "answer": None}, "must be the letter of one of 2 options, got None"),
        ({**ROWS[5][1], "answer": "nowhere"}, "'answer' must be one of the candidates"),
        ({**ROWS[6][1], "answer": 5}, "the right option must be one of 5, got number 6"),
        ({**ROWS[7][1], "answer": None}, "'answer' must be the number of an option, got None"),
        ({**ROWS[8][1], "options": ["p"]}, "must have 2 to 26 options in a list"),
        ({"video": "a.mp4", "qestion": "?", "answer": "x"}, "unknown key 'qestion'; did you mean 'question'"),
    ],
)
def test_mistakes_name_the_row(media: Path, row: dict[str, Any], says: str) -> None:
    (media / "data.json").write_text(json.dumps([ROWS[0][1], row]))
    with pytest.raises(ValueError, match=rf"data\.json, row 2\b.*{says}"):
        load_examples(media / "data.json")


def test_files_of_another_shape_are_refused(media: Path) -> None:
    path = media / "data.json"
    for content, says in (
        ("3", "must be a list of rows, got 3"),
        ("[1]", "row 1: must be a JSON object"),
        ("[", "not JSON"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=says):
            load_examples(path)


def test_missing_videos_are_told_with_their_row_or_left_out_if_asked(media: Path) -> None:
    rows = [ROWS[4][1], {**ROWS[4][1], "videoID": "gone"}, {**ROWS[4][1], "videoID": "lost"}, ROWS[5][1]]
    (media / "data.json").write_text(json.dumps(rows))
    with pytest.raises(FileNotFoundError, match=r"data\.json, row 2 \(Video-MME\): video .*gone: no such file"):
        load_examples(media / "data.json")
    with pytest.warns(
        UserWarning, match=r"2 rows are left out, without a video or image that is there; the first: .*row 2"
    ):
        left = load_examples(media / "data.json", skip_missing=True)
    assert [example["id"] for example in left] == ["7-1", "4"]


def test_text_alone_of_llavas_mix_is_left_out_if_asked(media: Path) -> None:
    talk = ROWS[0][1]["conversations"]
    rows = [{"id": "1", "conversations": talk}, {"id": "2", "image": "red.png", "conversations": talk}]
    (media / "data.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=r"row 1 \(LLaVA-Video-178K.*\): must have either 'video' or 'image'"):
        load_examples(media / "data.json")
    with pytest.warns(UserWarning, match="1 rows are left out"):
        (left,) = load_examples(media / "data.json", skip_missing=True)
    assert left["id"] == "2"


def test_media_may_lie_elsewhere(media: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("questions") / "data.json"
    elsewhere.write_text(json.dumps([ROWS[4][1]]))
    with pytest.raises(FileNotFoundError):
        load_examples(elsewhere)
    assert load_examples(elsewhere, media=media)[0]["video"] == str(media / "videos/7.mp4")
    with pytest.raises(FileNotFoundError, match="there is no such folder of media"):
        load_examples(elsewhere, media=media / "none")


def test_no_two_shapes_are_taken_for_each_other() -> None:
    for _, row, *_ in ROWS:
        forms = [form for form in FORMATS if any(keys <= set(row) for keys in form.keys)]
        assert find_format(list(row)) is forms[0]
    assert find_format(["video", "question", "answer", "options", "questions", "id", "image"]) is None


@given(question=st.text(max_size=30), answer=st.text(max_size=10))
def test_any_text_is_open_ended_or_a_letter_that_is_offered(question: str, answer: str) -> None:
    made = written_choice(question, answer)
    assert "options" not in made or (made["answer"] in made["options"] and len(made["options"]) >= 2)


def test_letters_in_front_of_options_are_not_doubled() -> None:
    made = multiple_choice("Which?", ["A. one", "(B) two", "C) three", "D: four", "Eve"], 4)
    assert made["question"].splitlines()[1:-1] == ["A. one", "B. two", "C. three", "D. four", "E. Eve"]
    assert made["answer"] == "E"


def test_sets_are_mixed_by_weight() -> None:
    mixed = MixedExamples([([{"n": n} for n in range(10)], 3), ([{"n": 100 + n} for n in range(4)], 1)])
    numbers = [example["n"] for example in (mixed[n] for n in range(len(mixed)))]
    assert len(mixed) == 16 and sum(n < 100 for n in numbers) == 12
    assert set(numbers) == {*range(10), *range(100, 104)}
    assert [mixed.origin(n)[1] for n in (0, 11, 12, 15)] == [0, 1, 0, 3]
    with pytest.raises(IndexError, match="number must be from 0 to 15, got 16"):
        mixed[16]
    for weights in ([], [1, 0], [1, float("nan")], [float("inf")]):
        with pytest.raises(ValueError, match="weights must be finite and above 0"):
            MixedExamples([([{}], weight) for weight in weights])


def test_mixed_and_split_sets_know_where_an_example_is_from(media: Path) -> None:
    (media / "data.json").write_text(json.dumps([ROWS[0][1], ROWS[4][1]]))
    examples = load_examples(media / "data.json")
    mixed = MixedExamples([(OneQuestionEach(examples), 1)])
    assert len(mixed) == 3
    inner, row = mixed.origin(2)
    assert inner.origin(row) == (examples, 1)  # type: ignore[attr-defined]
