"""Rows of questions about videos and images, from files and data sets of any shape that is known, each checked.

Whatever form a row has, it comes out as :mod:`score_video.rl.row_schema` has it: ours as docs/training.md describes
them, the field's through :mod:`score_video.rl.formats`.
"""

from __future__ import annotations

import codecs
import csv
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_video.errors import ScoreError
from score_video.rl.formats import find_format
from score_video.rl.json_list import elements_of
from score_video.rl.row_schema import KEYS, MEDIA, check_keys, example_of, must_exist, shown

if TYPE_CHECKING:
    import datasets

MakeExample = Callable[[], dict[str, Any]]

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
    if path.suffix in _FILES:
        must_exist(path)
        return _FILES[path.suffix](path, path.parent if media is None else Path(media))
    table = _table(source, path, split)
    folder = path if path.is_dir() else Path()
    return _rows_of_dataset(table, str(source), folder if media is None else Path(media))


def _table(source: str | Path, path: Path, split: str) -> datasets.Dataset:
    import datasets
    import pyarrow  # type: ignore[import-untyped]

    # PIL images and such pass through as they are stored; ours are decoded when they are read
    try:
        if path.is_dir():
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
    with path.open("rb") as file:
        lines = (line for ending_in_n in file for line in ending_in_n.splitlines())  # \r alone ends a line too
        for number, line in enumerate(lines, start=1):
            if line.strip() and line != codecs.BOM_UTF8:
                where = f"{path}, line {number}"
                yield where, partial(_example_of_line, line, number, where, folder)


def _example_of_line(line: bytes, number: int, where: str, folder: Path) -> dict[str, Any]:
    return _example_of_object(_parsed(line, where, "utf-8-sig" if number == 1 else "utf-8"), number, where, folder)


def _parsed(line: bytes, where: str, encoding: str) -> Any:
    try:
        return json.loads(line.decode(encoding))
    except UnicodeDecodeError as error:
        raise ScoreError(f"{where}: not UTF-8 at byte {error.start + 1}") from None
    except json.JSONDecodeError as error:
        raise ScoreError(f"{where}, column {error.colno}: not JSON ({error.msg})") from None
    except RecursionError:
        raise ScoreError(f"{where}: nested too deeply") from None


def _example_of_object(row: Any, number: int, where: str, folder: Path) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise ScoreError(f"{where}: must be a JSON object, got {shown(row)}")
    if find_format(list(row)) is None:
        check_keys(row, KEYS, where)
    return _example_of_keys(row, where, number, folder)


def _example_of_keys(row: Mapping[str, Any], where: str, number: int, folder: Path | None) -> dict[str, Any]:
    """A row of any shape -> a row of the schema. Files are looked for in ``folder``, unless it is None."""
    form = find_format(list(row))
    if form is None:
        return example_of(row, where, number, folder)
    where = f"{where} ({form.name})"
    try:
        own = form.convert(row)
    except ScoreError as error:
        raise ScoreError(f"{where}: {error}") from None
    for key in MEDIA:
        if folder is not None and isinstance(name := own.get(key), str):
            own[key] = _found(name, folder, f"{where}: {key}")
    return example_of(own, where, number, folder)


def _found(name: str, folder: Path, what: str) -> str:
    """The file that is meant by a name, as a path from ``folder``."""
    for inner in _SUBFOLDERS:
        for suffix in _SUFFIXES:
            if (folder / inner / f"{name}{suffix}").is_file():
                return str(Path(inner) / f"{name}{suffix}")
    raise FileNotFoundError(f"{what} {folder / name}: no such file, with or without {', '.join(_SUFFIXES[1:])}")


def _rows_of_json(path: Path, folder: Path) -> Iterator[tuple[str, MakeExample]]:
    """Of a list of rows, or of a mapping whose values are rows."""
    for number, row in enumerate(elements_of(path), start=1):
        where = f"{path}, row {number}"
        yield where, partial(_example_of_object, row, number, where, folder)


def _rows_of_csv(path: Path, folder: Path) -> Iterator[tuple[str, MakeExample]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file, strict=True), start=1):
                where = f"{path}, row {number}"
                if None in row or None in row.values():
                    said = f"{where}: must have as many values as there are names in the first line"
                    yield where, partial(_refuse, said)
                else:
                    yield where, partial(_example_of_object, row, number, where, folder)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ScoreError(f"{path}: not a table in UTF-8 ({error})") from None


def _refuse(message: str) -> dict[str, Any]:
    raise ScoreError(message)


def _rows_of_parquet(path: Path, folder: Path) -> Iterator[tuple[str, MakeExample]]:
    """Columns as in :func:`_rows_of_dataset`."""
    import datasets
    import pyarrow
    from pyarrow.parquet import ParquetFile  # type: ignore[import-untyped]

    try:
        with ParquetFile(path, pre_buffer=False) as file:  # it would read all that is asked for ahead
            features = datasets.Features.from_arrow_schema(file.schema_arrow)
            embedded, number = isinstance(features.get("image"), datasets.Image), 0
            for batch in file.iter_batches(64, columns=_columns(list(features))):
                for place in range(len(batch)):
                    number += 1
                    read = partial(_row_of_batch, batch, place)
                    yield _row_to_make(read, str(path), number, embedded, folder)
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise ScoreError(f"{path}: cannot be read as a data set: {' '.join(str(error).split())}") from error


def _row_of_batch(batch: Any, place: int) -> dict[str, Any]:
    (row,) = batch.slice(place, 1).to_pylist()
    return {str(name): value for name, value in row.items()}


def _rows_of_dataset(table: datasets.Dataset, source: str, folder: Path) -> Iterator[tuple[str, MakeExample]]:
    """Columns of other names than ours, or than those of a shape that is known, are left out: there are many."""
    import datasets

    table = table.select_columns(_columns(table.column_names))
    embedded = isinstance(table.features.get("image"), datasets.Image)
    if embedded:
        table = table.cast_column("image", datasets.Image(decode=False))
    for number in range(len(table)):
        yield _row_to_make(partial(table.__getitem__, number), source, number + 1, embedded, folder)


def _columns(names: list[str]) -> list[str]:
    return [name for name in names if name in KEYS] if find_format(names) is None else names


def _row_to_make(
    read: Callable[[], dict[str, Any]], source: str, number: int, embedded: bool, folder: Path
) -> tuple[str, MakeExample]:
    """Of a data set's row, from 1; ``embedded``: its image is of datasets' kind, bytes or the path of a file."""
    where = f"{source}, row {number}"
    return where, partial(_example_of_row, read, number, where, embedded, folder)


def _example_of_row(
    read: Callable[[], dict[str, Any]], number: int, where: str, embedded: bool, folder: Path
) -> dict[str, Any]:
    try:
        row = read()
    except UnicodeDecodeError as error:
        raise ScoreError(f"{where}: not UTF-8 ({error.reason})") from None
    image = row.get("image")
    if embedded and image is not None:
        # as bytes, or as the path of the file that the column was made from
        if image["bytes"] is None:
            must_exist(Path(image["path"]), f"{where}: image")
        return {**_example_of_keys({**row, "image": "embedded"}, where, number, None), "image": image}
    return _example_of_keys(row, where, number, folder)


_FILES: dict[str, Callable[[Path, Path], Iterator[tuple[str, MakeExample]]]] = {
    ".jsonl": _rows_of_jsonl,
    ".json": _rows_of_json,
    ".csv": _rows_of_csv,
    ".parquet": _rows_of_parquet,
}
