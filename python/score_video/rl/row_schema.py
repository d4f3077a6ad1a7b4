"""What an example is: ``{"id", "video", "image", "questions"}``; of a row as docs/training.md has it, checked."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from score_video.errors import ScoreError
from score_video.files import is_text

MEDIA = ("video", "image")
ASKED = ("question", "answer", "options")
KEYS = (*MEDIA, *ASKED, "questions", "id")


class NoMediaError(ScoreError):
    """A row is about no video and no image: LLaVA's sets have some that are text alone."""


def example_of(row: Mapping[str, Any], where: str, number: int, folder: Path | None) -> dict[str, Any]:
    """A row of ours -> a row of the schema."""
    row = {key: value for key, value in row.items() if value is not None}
    media = [key for key in MEDIA if key in row]
    if not media:
        raise NoMediaError(f"{where}: must have either 'video' or 'image', got neither")
    if len(media) > 1:
        raise ScoreError(f"{where}: must have either 'video' or 'image', got {' and '.join(media)}")
    path = _text(row, media[0], where)
    if folder is not None:
        path = str(folder / path)
        must_exist(Path(path), f"{where}: {media[0]}")
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
        raise ScoreError(f"{where}: 'questions' must be a list of at least one object, got {shown(questions)}")
    for number, question in enumerate(questions, start=1):
        if not isinstance(question, dict):
            raise ScoreError(f"{where}: question {number} must be an object, got {shown(question)}")
        check_keys(question, ASKED, f"{where}, question {number}")
    return [_question(question, f"{where}, question {number}") for number, question in enumerate(questions, start=1)]


def _question(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    question, answer = _text(row, "question", where), _text(row, "answer", where)
    options = row.get("options")
    if options is None or (isinstance(options, Sequence) and len(options) == 0):
        return {"question": question, "answer": answer, "options": []}
    if not isinstance(options, list) or not all(isinstance(option, str) and is_text(option) for option in options):
        raise ScoreError(f"{where}: 'options' must be a list of strings, got {shown(options)}")
    if len(set(options)) < max(2, len(options)):
        raise ScoreError(f"{where}: 'options' must be at least two different strings, got {shown(options)}")
    if answer not in options:
        raise ScoreError(f"{where}: 'answer' must be one of the options {shown(options)}, got {shown(answer)}")
    return {"question": question, "answer": answer, "options": options}


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    if key not in row:
        raise ScoreError(f"{where}: {key!r} is missing")
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise ScoreError(f"{where}: {key!r} must be a string that is not empty, got {shown(value)}")
    if not is_text(value):
        raise ScoreError(f"{where}: {key!r} must be text, and an escape in it stands for half of a character")
    return value


def check_keys(row: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in row:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=1)
            meant = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
            raise ScoreError(f"{where}: unknown key {key!r}; {meant}")


def must_exist(path: Path, what: str = "") -> None:
    if not path.is_file():
        prefix = f"{what} " if what else ""
        raise FileNotFoundError(f"{prefix}{path}: no such file")


def shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else text[:77] + "..."
