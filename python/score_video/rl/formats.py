"""The shapes in which the field writes questions about videos down, each turned into a row of ours.

A shape is recognised by its keys. To add one, write a function like its neighbours and name it in :data:`FORMATS`.
Of multiple choice the options go into the question, each behind its letter, and the letters are what is scored.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from score_video.errors import ScoreError

Row = Mapping[str, Any]

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_ASK_FOR_A_LETTER = "Answer with the letter of the right option."
_PLACEHOLDER = re.compile(r"\s*<(image|video)>\s*")
_OPTION = re.compile(r"^\s*\(?([A-Z])[.):]\)?\s+\S", re.MULTILINE)
_CHOICE = re.compile(r"\s*(?:Best option:)?\s*\(?([A-Z])(?:[.):]|\s*$)")
_ANSWER_TAG = re.compile(r"<answer>\s*(.*?)\s*</answer>", re.DOTALL)


class Format(NamedTuple):
    """A shape of rows.

    Attributes:
        name: what people call the format, for messages.
        keys: which a row must have to be of it; of several sets one.
        convert: row -> row of ours: ``video`` or ``image``, ``question``, ``answer`` and ``options`` or ``questions``,
            and ``id`` where there is one. Raises ScoreError for what is wrong, without saying where.
    """

    name: str
    keys: tuple[frozenset[str], ...]
    convert: Callable[[Row], dict[str, Any]]


def find_format(keys: Sequence[str]) -> Format | None:
    """The format of rows with these keys; None: they are to be as ours."""
    return next((form for form in FORMATS if any(needed <= set(keys) for needed in form.keys)), None)


def multiple_choice(question: str, options: Sequence[str], right: int) -> dict[str, Any]:
    """A question with its options written into it, to be answered by a letter.

    Args:
        question: without the options.
        options: with a letter in front of each, or none.
        right: number of the right one, from 0.
    """
    if not isinstance(options, list | tuple) or not 2 <= len(options) <= len(LETTERS):
        raise ScoreError(f"must have 2 to {len(LETTERS)} options in a list, got {options!r}")
    if not 0 <= right < len(options):
        raise ScoreError(f"the right option must be one of {len(options)}, got number {right + 1}")
    letters = list(LETTERS[: len(options)])
    bare = [
        re.sub(rf"^\s*\(?{letter}[.):]\)?\s+", "", str(option)) for letter, option in zip(letters, options, strict=True)
    ]
    lines = [f"{letter}. {option}" for letter, option in zip(letters, bare, strict=True)]
    asked = "\n".join([question.strip(), *lines, _ASK_FOR_A_LETTER])
    return {"question": asked, "answer": letters[right], "options": letters}


def written_choice(question: str, answer: str) -> dict[str, Any]:
    """A question that may have its options in its text, behind letters, and then an answer that begins with one."""
    question, answer = question.strip(), answer.strip()
    letters = _OPTION.findall(question)
    chosen = _CHOICE.match(answer)
    if len(letters) >= 2 and letters == list(LETTERS[: len(letters)]) and chosen and chosen[1] in letters:
        return {"question": question, "answer": chosen[1], "options": letters}
    return {"question": question, "answer": answer}


def _letter(answer: Any, count: int) -> int:
    """The number of an option that is named by its letter."""
    chosen = _CHOICE.match(answer) if isinstance(answer, str) else None
    if chosen is None or LETTERS.index(chosen[1]) >= count:
        raise ScoreError(f"the answer must be the letter of one of {count} options, got {answer!r}")
    return LETTERS.index(chosen[1])


def _number(answer: Any, what: str) -> int:
    """A number that may be written as a string."""
    try:
        if isinstance(answer, bool):
            raise TypeError
        return int(answer)
    except (TypeError, ValueError):
        raise ScoreError(f"{what} must be the number of an option, got {answer!r}") from None


def _string(row: Row, key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ScoreError(f"{key!r} must be a string that is not empty, got {value!r}")
    return value


def _with_id(row: Row, key: str, converted: dict[str, Any]) -> dict[str, Any]:
    return converted if row.get(key) is None else {**converted, "id": str(row[key])}


def _media(row: Row) -> dict[str, Any]:
    """``video`` or ``image``, one of them and one alone; some sets have lists of one."""
    found = {}
    for key in ("video", "image"):
        value = row.get(key)
        if isinstance(value, list):
            if len(value) != 1:
                raise ScoreError(f"{key!r} must be one file, got {len(value)}")
            value = value[0]
        if value is not None:
            found[key] = value
    return found


def _conversations(row: Row) -> dict[str, Any]:
    turns = row["conversations"]
    if not isinstance(turns, list) or not turns:
        raise ScoreError(f"'conversations' must be a list of turns, got {turns!r}")
    said: list[tuple[str, str]] = []
    for turn in turns:
        if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
            raise ScoreError(f"a turn must have 'from' and 'value', got {turn!r}")
        if turn.get("from") != "system":
            said.append((str(turn.get("from")), _PLACEHOLDER.sub("\n", turn["value"]).strip()))
    speakers = [speaker for speaker, _ in said]
    if speakers != ["human", "gpt"] * (len(said) // 2):
        raise ScoreError(f"turns must be from human and gpt by turns, got {', '.join(speakers)}")
    pairs = zip(said[::2], said[1::2], strict=True)
    questions = [written_choice(question, answer) for (_, question), (_, answer) in pairs]
    return _with_id(row, "id", {**_media(row), "questions": questions})


def _problem(row: Row) -> dict[str, Any]:
    """Of Video-R1 (``path``, ``solution``) and EasyR1 (``videos`` or ``images``, ``answer``)."""
    problem, options = _PLACEHOLDER.sub("\n", _string(row, "problem")).strip(), row.get("options") or []
    if "solution" in row:
        solution = _string(row, "solution")
        tag = _ANSWER_TAG.search(solution)
        answer = tag[1] if tag else solution
    else:
        answer = _string(row, "answer")
    asked = (
        multiple_choice(problem, options, _letter(answer, len(options))) if options else written_choice(problem, answer)
    )
    if "path" in row:
        kind = "image" if row.get("data_type") == "image" else "video"
        media = {kind: _string(row, "path").removeprefix("./")}
    else:
        media = _media({"video": row.get("videos") or None, "image": row.get("images") or None})
    return _with_id(row, "problem_id", {**media, **asked})


def _video_mme(row: Row) -> dict[str, Any]:
    options = row["options"]
    asked = multiple_choice(_string(row, "question"), options, _letter(row["answer"], len(options)))
    return _with_id(row, "question_id", {"video": str(row["videoID"]), **asked})


def _candidates(row: Row) -> dict[str, Any]:
    """MVBench, MLVU."""
    options = row["candidates"]
    if not isinstance(options, list) or row["answer"] not in options:
        raise ScoreError(f"'answer' must be one of the candidates {options!r}, got {row['answer']!r}")
    return {**_media(row), **multiple_choice(_string(row, "question"), options, options.index(row["answer"]))}


def _next_qa(row: Row) -> dict[str, Any]:
    options = [row[f"a{number}"] for number in range(5)]
    asked = multiple_choice(_string(row, "question"), options, _number(row["answer"], "'answer'"))
    return _with_id(row, "qid", {"video": str(row["video"]), **asked})


def _ego_schema(row: Row) -> dict[str, Any]:
    asked = multiple_choice(_string(row, "question"), row["option"], _number(row["answer"], "'answer'"))
    return _with_id(row, "question_idx", {"video": str(row["video_idx"]), **asked})


def _perception_test(row: Row) -> dict[str, Any]:
    asked = multiple_choice(_string(row, "question"), row["options"], _number(row["answer_id"], "'answer_id'"))
    return _with_id(row, "question_id", {"video": str(row["video_name"]), **asked})


def _options_in_text(video: str) -> Callable[[Row], dict[str, Any]]:
    def convert(row: Row) -> dict[str, Any]:
        return {"video": str(row[video]), **written_choice(_string(row, "question"), _string(row, "answer"))}

    return convert


def _keys(*names: str) -> tuple[frozenset[str], ...]:
    return (frozenset(names),)


FORMATS: tuple[Format, ...] = (
    Format("LLaVA-Video-178K, ShareGPT4Video, LLaVA", _keys("conversations"), _conversations),
    Format(
        "Video-R1, EasyR1",
        (frozenset({"problem", "path"}), frozenset({"problem", "videos"}), frozenset({"problem", "images"})),
        _problem,
    ),
    Format("Video-MME", _keys("videoID", "question", "options", "answer"), _video_mme),
    Format("MVBench, MLVU", _keys("video", "question", "candidates", "answer"), _candidates),
    Format("NExT-QA", _keys("video", "question", "answer", "a0", "a1", "a2", "a3", "a4"), _next_qa),
    Format("EgoSchema", _keys("video_idx", "question", "option", "answer"), _ego_schema),
    Format("PerceptionTest", _keys("video_name", "question", "options", "answer_id"), _perception_test),
    Format("MLVU with options in the text", _keys("video_name", "question", "answer"), _options_in_text("video_name")),
    Format("TempCompass", _keys("video_id", "question", "answer"), _options_in_text("video_id")),
)
"""In the order in which they are tried."""
