"""Examples to train on: videos or images with questions and answers, from JSONL or a Hugging Face dataset.

The format is in docs/training.md. Whatever form a row has, it comes out with one schema (``FEATURES``), and every
row is checked when it is loaded, so that a mistake in the last line does not end a run after hours.
"""

from __future__ import annotations

import codecs
import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_video.errors import ScoreError
from score_video.files import is_text

if TYPE_CHECKING:
    import datasets

MakeExample = Callable[[], dict[str, Any]]

MEDIA = ("video", "image")
ASKED = ("question", "answer", "options")
KEYS = (*MEDIA, *ASKED, "questions", "id")


def load_examples(source: str | Path, *, split: str = "train") -> datasets.Dataset:
    """Loads and checks examples.

    Args:
        source: a ``.jsonl`` or ``.parquet`` file, a folder made by ``Dataset.save_to_disk``, or the id of a data set
            on the Hugging Face hub.
        split: the split to load of a data set on the hub.

    Returns:
        a ``datasets.Dataset`` with the columns ``id`` (str; the row's number where there is none), ``video`` (path or
        None), ``image`` (PIL image or None) and ``questions`` (list of ``{"question", "answer", "options"}``; no
        options is an empty list). Relative paths have become relative to the file's folder (to the current one for a
        hub data set).

    Raises:
        ValueError: a row is wrong; the text names the file, the line (the row, where there are no lines) and the key.
        FileNotFoundError: there is no such file.
    """
    return _to_dataset([make() for _, make in rows_of(source, split=split)], str(source))


def rows_of(source: str | Path, *, split: str = "train") -> Iterator[tuple[str, MakeExample]]:
    """The rows of a source one by one, so that all that are wrong can be told.

    Args:
        source, split: as for :func:`load_examples`.

    Yields:
        (where: the file and the line or row; what makes the row's example, or raises as :func:`load_examples` does).

    Raises:
        ValueError, FileNotFoundError: the source is none.
    """
    path = Path(source)
    if path.suffix == ".jsonl":
        return _rows_of_jsonl(path)
    table = _table(source, path, split)
    folder = path if path.is_dir() else path.parent if path.exists() else Path()
    return _rows_of_dataset(table, str(source), folder)


def _table(source: str | Path, path: Path, split: str) -> datasets.Dataset:
    import datasets
    import pyarrow  # type: ignore[import-untyped]

    # PIL images and such pass through as they are stored; ours are decoded when they are read
    try:
        if path.suffix == ".parquet":
            _must_exist(path)
            table = datasets.Dataset.from_parquet(str(path))
        elif path.is_dir():
            table = datasets.load_from_disk(str(path))
        elif path.exists() or path.is_absolute() or path.suffix == ".json":
            raise ScoreError(f"{source}: must be a .jsonl or .parquet file, a saved data set, or an id on the hub")
        else:
            table = datasets.load_dataset(str(source), split=split)
    except (datasets.exceptions.DatasetsError, pyarrow.ArrowInvalid) as error:
        cause = error.__cause__ or error  # what stands there is the library's "An error occurred"
        raise ScoreError(f"{source}: cannot be read as a data set: {' '.join(str(cause).split())}") from error
    if not isinstance(table, datasets.Dataset):
        raise ScoreError(f"{source}: must be one data set, got {type(table).__name__} of {', '.join(map(str, table))}")
    return table


class OneQuestionEach:
    """A data set in which each example asks one question: one with several comes as often as it has questions.

    For policies that see the question. Map-style.

    Args:
        examples: what :func:`load_examples` returned.
    """

    def __init__(self, examples: datasets.Dataset) -> None:
        self.examples = examples
        self._places = [
            (row, question) for row, questions in enumerate(examples["questions"]) for question in range(len(questions))
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> dict[str, Any]:
        row, question = self._places[number]
        example = self.examples[row]
        return {**example, "questions": [example["questions"][question]]}

    def row_of(self, number: int) -> int:
        """Which of ``examples`` asks the question."""
        return self._places[number][0]


def _to_dataset(examples: list[dict[str, Any]], source: str) -> datasets.Dataset:
    import datasets

    if not examples:
        raise ScoreError(f"{source}: is empty")
    text = datasets.Value("string")
    question = {"question": text, "answer": text, "options": datasets.List(text)}
    features = datasets.Features(
        {"id": text, "video": text, "image": datasets.Image(), "questions": datasets.List(question)}
    )
    return datasets.Dataset.from_list(examples, features=features)


def _rows_of_jsonl(path: Path) -> Iterator[tuple[str, MakeExample]]:
    """Of each line that is not blank."""
    _must_exist(path)
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip() and line != codecs.BOM_UTF8:
            where = f"{path}, line {number}"
            yield where, partial(_example_of_line, line, number, where, path.parent)


def _example_of_line(line: bytes, number: int, where: str, folder: Path) -> dict[str, Any]:
    try:
        text = line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise ScoreError(f"{where}: not UTF-8 at byte {error.start + 1}") from None
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise ScoreError(f"{where}, column {error.colno}: not JSON ({error.msg})") from None
    except RecursionError:
        raise ScoreError(f"{where}: nested too deeply") from None
    if not isinstance(row, dict):
        raise ScoreError(f"{where}: must be a JSON object, got {_shown(row)}")
    _check_keys(row, KEYS, where)
    return _example(row, where, number, folder)


def _rows_of_dataset(table: datasets.Dataset, source: str, folder: Path) -> Iterator[tuple[str, MakeExample]]:
    """Columns of other names are left out: data sets on the hub have many."""
    import datasets

    known = [name for name in table.column_names if name in KEYS]
    table = table.select_columns(known)
    embedded = "image" in known and isinstance(table.features["image"], datasets.Image)
    if embedded:
        table = table.cast_column("image", datasets.Image(decode=False))
    for number in range(len(table)):
        where = f"{source}, row {number + 1}"
        yield where, partial(_example_of_row, table, number, where, embedded, folder)


def _example_of_row(table: datasets.Dataset, number: int, where: str, embedded: bool, folder: Path) -> dict[str, Any]:
    try:
        row = table[number]
    except UnicodeDecodeError as error:
        raise ScoreError(f"{where}: not UTF-8 ({error.reason})") from None
    image = row.get("image")
    if embedded and image is not None:
        # as bytes, or as the path of the file that the column was made from
        if image["bytes"] is None:
            _must_exist(Path(image["path"]), f"{where}: image")
        return {**_example({**row, "image": "embedded"}, where, number + 1, None), "image": image}
    return _example(row, where, number + 1, folder)


def _example(row: Mapping[str, Any], where: str, number: int, folder: Path | None) -> dict[str, Any]:
    """A row as it is written -> a row of the schema. Files are looked for in ``folder``, unless it is None."""
    row = {key: value for key, value in row.items() if value is not None}
    media = [key for key in MEDIA if key in row]
    if len(media) != 1:
        raise ScoreError(f"{where}: must have either 'video' or 'image', got {' and '.join(media) or 'neither'}")
    path = _text(row, media[0], where)
    if folder is not None:
        path = str(folder / path)
        _must_exist(Path(path), f"{where}: {media[0]}")
    return {
        "id": _text(row, "id", where) if "id" in row else str(number),
        "video": path if media == ["video"] else None,
        "image": path if media == ["image"] else None,
        "questions": _questions(row, where),
    }


def _questions(row: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    if "questions" not in row:
        return [_question(row, where)]
    beside = [key for key in ASKED if key in row]
    if beside:
        raise ScoreError(f"{where}: must have either 'questions' or {beside[0]!r}, got both")
    questions = row["questions"]
    if not isinstance(questions, list) or not questions:
        raise ScoreError(f"{where}: 'questions' must be a list of at least one object, got {_shown(questions)}")
    for number, question in enumerate(questions, start=1):
        if not isinstance(question, dict):
            raise ScoreError(f"{where}: question {number} must be an object, got {_shown(question)}")
        _check_keys(question, ASKED, f"{where}, question {number}")
    return [_question(question, f"{where}, question {number}") for number, question in enumerate(questions, start=1)]


def _question(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    question, answer = _text(row, "question", where), _text(row, "answer", where)
    options = row.get("options")
    if options is None or (isinstance(options, Sequence) and len(options) == 0):
        return {"question": question, "answer": answer, "options": []}
    if not isinstance(options, list) or not all(isinstance(option, str) and is_text(option) for option in options):
        raise ScoreError(f"{where}: 'options' must be a list of strings, got {_shown(options)}")
    if len(set(options)) < max(2, len(options)):
        raise ScoreError(f"{where}: 'options' must be at least two different strings, got {_shown(options)}")
    if answer not in options:
        raise ScoreError(f"{where}: 'answer' must be one of the options {_shown(options)}, got {_shown(answer)}")
    return {"question": question, "answer": answer, "options": options}


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    if key not in row:
        raise ScoreError(f"{where}: {key!r} is missing")
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise ScoreError(f"{where}: {key!r} must be a string that is not empty, got {_shown(value)}")
    if not is_text(value):
        raise ScoreError(f"{where}: {key!r} must be text, and an escape in it stands for half of a character")
    return value


def _check_keys(row: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in row:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            meant = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise ScoreError(f"{where}: unknown key {key!r}; {meant}")


def _must_exist(path: Path, what: str = "") -> None:
    if not path.is_file():
        prefix = f"{what} " if what else ""
        raise FileNotFoundError(f"{prefix}{path}: no such file")


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
