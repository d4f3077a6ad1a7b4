"""``score data filter``: questions that a model answers without the video teach a policy nothing, and are left out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from score_video.errors import ScoreError
from score_video.files import check_output_file, output_file
from score_video.progress import Progress
from score_video.rl.broken import encode_others
from score_video.rl.environment import Selection
from score_video.rl.rows import rows_of

if TYPE_CHECKING:
    from score_video.mllm.environment import MllmEnvironment

BATCH = 8
"""Questions asked at a time."""

ANSWERED = "answered without the video"
"""The reason why a question is left out, unless its video cannot be read."""

FRAMES, MAX_PIXELS = 2, 112 * 112
"""Of each video: nothing of it is shown, and so little of it is read."""


@dataclass(frozen=True)
class Filtered:
    """What became of a file.

    Attributes:
        rows, questions: how many there were.
        kept_rows, kept_questions: how many are left.
        unreadable: of the questions, how many are about a video or image that cannot be read.
    """

    rows: int
    questions: int
    kept_rows: int
    kept_questions: int
    unreadable: int


def run(
    source: str,
    environment: MllmEnvironment,
    output: Path,
    dropped: Path | None = None,
    *,
    split: str = "train",
    media: Path | None = None,
    progress: Progress | None = None,
) -> Filtered:
    """Asks every question without any of the video's tokens, and writes the rows that are left.

    Args:
        source, split, media: as for :func:`score_video.rl.data.load_examples`.
        environment: the model; ``num_frames`` and ``max_pixels`` may be small.
        output: JSONL of the rows whose questions need the video, with these questions alone, as ``score train`` reads
            them; paths are relative to its folder.
        dropped: JSONL of what was left out, each with its reason; None: nowhere.
        progress: told how far things are.

    Raises:
        ScoreError, OSError: a row that is wrong, or a file that cannot be written: neither file is then there.
    """
    check_outputs(output, dropped)
    rows = list(rows_of(source, split=split, media=media))
    examples = [_written(make(), where) for where, make in rows]
    asked = [(row, question) for row, example in enumerate(examples) for question in example["questions"]]
    verdicts: list[str | None] = []
    for begin in range(0, len(asked), BATCH):
        some = asked[begin : begin + BATCH]
        verdicts += _verdicts(environment, [{**examples[row], "questions": [question]} for row, question in some])
        if progress:
            progress("questions", len(verdicts), len(asked))
    left: list[dict[str, Any]] = []
    gone: list[dict[str, Any]] = []
    of_row: dict[int, list[tuple[Any, str | None]]] = {}
    for (row, question), verdict in zip(asked, verdicts, strict=True):
        of_row.setdefault(row, []).append((question, verdict))
    for row, judged in of_row.items():
        about = {name: value for name, value in examples[row].items() if name != "questions"}
        about |= _media(examples[row], output.parent)
        if needs := [question for question, verdict in judged if verdict is None]:
            left.append({**about, "questions": needs})
        gone += [
            {**about, "questions": [question for question, verdict in judged if verdict == reason], "reason": reason}
            for reason in dict.fromkeys(verdict for _, verdict in judged if verdict is not None)
        ]
    for path, lines in ((output, left), (dropped, gone)):
        if path is not None:
            with output_file(path) as temporary:
                temporary.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    counts = [sum(verdict == of for verdict in verdicts) for of in (None, ANSWERED)]
    return Filtered(len(rows), len(asked), len(left), counts[0], len(asked) - sum(counts))


def check_outputs(output: Path, dropped: Path | None) -> None:
    """Raises ScoreError or OSError for files that could not be written, or are one."""
    outputs = [path for path in (output, dropped) if path is not None]
    for path in outputs:
        check_output_file(path)
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise ScoreError(f"--output and --dropped must be two files, got {output} twice")


def _verdicts(environment: MllmEnvironment, examples: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """Why each example, which asks one question, is to be left out; None: it needs its video."""
    verdicts: list[str | None] = [None] * len(examples)
    numbers, readable = list(range(len(examples))), list(examples)

    def leave_out(position: int, reason: str) -> None:
        verdicts[numbers[position]] = reason
        del numbers[position], readable[position]

    batch = encode_others(environment, readable, leave_out)
    if batch is not None:
        device = batch.videos.tokens.device
        keep = torch.zeros(1, len(numbers), dtype=torch.int32, device=device)
        outcome = environment.answer(batch, Selection(torch.zeros(0, dtype=torch.int64, device=device), keep))
        for number, right in zip(numbers, outcome.correct[0].tolist(), strict=True):
            verdicts[number] = ANSWERED if right else None
    return verdicts


def _written(example: dict[str, Any], where: str) -> dict[str, Any]:
    """An example without what is None. Raises ScoreError for an image that stands in its row and has no file."""
    if isinstance(example["image"], Mapping):
        raise ScoreError(f"{where}: its image stands in the row, and cannot be written to JSONL: take one with files")
    return {name: value for name, value in example.items() if value is not None}


def _media(example: Mapping[str, Any], folder: Path) -> dict[str, str]:
    return {
        kind: os.path.relpath(Path(example[kind]).resolve(), folder.resolve())
        for kind in ("video", "image")
        if kind in example
    }
