"""Files of questions for ``score ask``: a JSON object a line, or any file that ``score train`` reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from score_video.errors import ScoreError
from score_video.rl.formats import find_format
from score_video.rl.row_schema import NoMediaError
from score_video.rl.rows import rows_of


def read_questions(path: Path, video: Path, media: Path | None = None) -> list[dict[str, Any]]:
    """What is to be asked about a video, each with a "question".

    Args:
        path: JSONL of objects with a "question"; or a file of the field's (:mod:`score_video.rl.formats`), of which
            those about the video are taken, each with its ``id``, what is ``expected``, and ``options`` if it has any.
        video: the file that is asked about.
        media: for the field's, the folder that relative paths start from; None: the file's own.

    Raises:
        ScoreError: a line or row is wrong (names it), or nothing is asked about the video.
        OSError: a file cannot be read.
    """
    if path.suffix == ".jsonl":
        lines = _objects(path)
        if find_format(list(lines[0])) is None:
            return lines
    return _about(path, video, media)


def _objects(path: Path) -> list[dict[str, Any]]:
    """The objects in a file of lines; those of the field are not looked into."""
    objects: list[dict[str, Any]] = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            asked = json.loads(line)
        except ValueError as error:
            raise ScoreError(f"{path}:{number}: must be a JSON object, got {error}") from None
        question = asked.get("question") if isinstance(asked, dict) else None
        of_the_field = isinstance(asked, dict) and find_format(list(asked)) is not None
        if not of_the_field and (not isinstance(question, str) or not question.strip()):
            raise ScoreError(f'{path}:{number}: must have a "question" that is text and not empty, got {question!r}')
        objects.append(asked)
    if not objects:
        raise ScoreError(f"{path} must hold questions, one JSON object a line, and is empty")
    return objects


def _about(path: Path, video: Path, media: Path | None) -> list[dict[str, Any]]:
    if not video.is_file():
        raise FileNotFoundError(2, "no such video", str(video))
    asked: list[dict[str, Any]] = []
    for _, make in rows_of(path, media=media):
        try:
            example = make()
        except (FileNotFoundError, NoMediaError):  # about another video, or none
            continue
        if example["video"] is None or not video.samefile(example["video"]):
            continue
        for question in example["questions"]:
            options = {"options": question["options"]} if question["options"] else {}
            told = {"id": example["id"], "question": question["question"], "expected": question["answer"]}
            asked.append(told | options)
    if not asked:
        folder = path.parent if media is None else media
        raise ScoreError(f"{path}: asks nothing about {video} (videos are looked for in {folder}: --media)")
    return asked
