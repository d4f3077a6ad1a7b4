"""Rows of questions about videos and images, from files and data sets of any shape that is known, each checked.

Whatever form a row has, it comes out as ``{"id", "video", "image", "questions"}``: ours as docs/training.md has it, the
field's through :mod:`score_video.rl.formats`.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_video.errors import ScoreError
from score_video.files import is_text
from score_video.rl.formats import find_format

if TYPE_CHECKING:
    import datasets

MakeExample = Callable[[], dict[str, Any]]

MEDIA = ("video", "image")
ASKED = ("question", "answer", "options")
KEYS = (*MEDIA, *ASKED, "questions", "id")

_FILES = (".jsonl", ".json", ".csv", ".parquet")
_SUBFOLDERS = ("", "videos", "video", "data")
_SUFFIXES = ("", ".mp4", ".mkv", ".webm", ".avi", ".mov")
"""Where the field's files leave a folder or a suffix out."""


def rows_of(
    source: str | Path, *, split: str = "train", media: str | Path | None = None
) -> Iterator[tuple[str, MakeExample]]:
    """The rows of a source one by one, so that all that are wrong can be told.

    Args:
        source, split, media: as for :func:`score_video.rl.data.load_examples`.

    Yields:
        (where: the file and the line or row; what makes the row's example, or raises as ``load_examples`` does).

    Raises:
        ValueError, FileNotFoundError: the source is none.
    """
    path = Path(source)
    if media is not None and not Path(media).is_dir():
        raise FileNotFoundError(2, "there is no such folder of media", str(media))
    if path.suffix in (".jsonl", ".json", ".csv"):
        _must_exist(path)
        read = {".jsonl": _rows_of_jsonl, ".json": _rows_of_json, ".csv": _rows_of_csv}[path.suffix]
        return read(path, path.parent if media is None else Path(media))
    table = _table(source, path, split)
    folder = path if path.is_dir() else path.parent if path.exists() else Path()
    return _rows_of_dataset(table, str(source), folder if media is None else Path(media))


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
        elif path.exists() or path.is_absolute():
            raise ScoreError(f"{source}: must be a file ({', '.join(_FILES)}), a saved data set, or an id on the hub")
        else:
            table = datasets.load_dataset(str(source), split=split)
    except (datasets.exceptions.DatasetsError, pyarrow.ArrowInvalid) as error:
        cause = error.__cause__ or error  # what stands there is the library's "An error occurred"
        raise ScoreError(f"{source}: cannot be read as a data set: {' '.join(str(cause).split())}") from error
    if not isinstance(table, datasets.Dataset):
        raise ScoreError(f"{source}: must be one data set, got {type(table).__name__} of {', '.join(map(str, table))}")
    return table


def _rows_of_jsonl(path: Path, folder: Path) -> Iterator[tuple[str, MakeExample]]:
    """Of each line that is not blank."""
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        if line.strip() and line != codecs.BOM_UTF8:
            where = f"{path}, line {number}"
            yield where, partial(_example_of_line, line, number, where, folder)


def _example_of_line(line: bytes, number: int, where: str, folder: Path) -> dict[str, Any]:
    return _example_of_object(_parsed(line, where, "utf-8-sig" if number == 1 else "utf-8"), number, where, folder)


def _parsed(content: bytes, where: str, encoding: str) -> Any:
    try:
        return json.loads(content.decode(encoding))
    except UnicodeDecodeError as error:
        raise ScoreError(f"{where}: not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if error.lineno > 1 else ""
        raise ScoreError(f"{where}{line}, column {error.colno}: not JSON ({error.msg})") from None
    except RecursionError:
        raise ScoreError(f"{where}: nested too deeply") from None


def _example_of_object(row: Any, number: int, where: str, folder: Path) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ScoreError(f"{where}: must be a JSON object, got {_shown(row)}")
    if find_format(list(row)) is None:
        _check_keys(row, KEYS, where)
    return _example_of_keys(row, where, number, folder)


def _example_of_keys(row: Mapping[str, Any], where: str, number: int, folder: Path | None) -> dict[str, Any]:
    """A row of any shape -> a row of the schema. Files are looked for in ``folder``, unless it is None."""
    form = find_format(list(row))
    if form is None:
        return _example(row, where, number, folder)
    where = f"{where} ({form.name})"
    try:
        own = form.convert(row)
    except ScoreError as error:
        raise ScoreError(f"{where}: {error}") from None
    for key in MEDIA:
        if folder is not None and isinstance(name := own.get(key), str):
            own[key] = _found(name, folder, f"{where}: {key}")
    return _example(own, where, number, folder)


def _found(name: str, folder: Path, what: str) -> str:
    """The file that is meant by a name, as a path from ``folder``."""
    for inner in _SUBFOLDERS:
        for suffix in _SUFFIXES:
            if (folder / inner / f"{name}{suffix}").is_file():
                return str(Path(inner) / f"{name}{suffix}")
    raise FileNotFoundError(f"{what} {folder / name}: no such file, with or without {', '.join(_SUFFIXES[1:])}")


def _rows_of_json(path: Path, folder: Path) -> Iterator[tuple[str, MakeExample]]:
    """Of a list of rows, or of a mapping whose values are rows."""
    content = _parsed(path.read_bytes(), str(path), "utf-8-sig")
    rows = list(content.values()) if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise ScoreError(f"{path}: must be a list of rows, got {_shown(content)}")
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        yield where, partial(_example_of_object, row, number, where, folder)


def _rows_of_csv(path: Path, folder: Path) -> Iterator[tuple[str, MakeExample]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = list(csv.DictReader(text.splitlines(keepends=True), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ScoreError(f"{path}: not a table in UTF-8 ({error})") from None
    for number, row in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        if None in row or None in row.values():
            yield where, partial(_refuse, f"{where}: must have as many values as there are names in the first line")
        else:
            yield where, partial(_example_of_object, row, number, where, folder)


def _refuse(message: str) -> dict[str, Any]:
    raise ScoreError(message)


def _rows_of_dataset(table: datasets.Dataset, source: str, folder: Path) -> Iterator[tuple[str, MakeExample]]:
    """Columns of other names than ours, or than those of a shape that is known, are left out: there are many."""
    import datasets

    if find_format(table.column_names) is None:
        table = table.select_columns([name for name in table.column_names if name in KEYS])
    embedded = isinstance(table.features.get("image"), datasets.Image)
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
        return {**_example_of_keys({**row, "image": "embedded"}, where, number + 1, None), "image": image}
    return _example_of_keys(row, where, number + 1, folder)


def _example(row: Mapping[str, Any], where: str, number: int, folder: Path | None) -> dict[str, Any]:
    """A row of ours -> a row of the schema."""
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
