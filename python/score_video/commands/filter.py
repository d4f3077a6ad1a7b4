"""``score data filter``: questions that a model answers without the video teach a policy nothing, and are left out.

Memory does not grow with the set: rows are those of :func:`score_video.rl.data.load_examples`, which keeps many of them
on disk, and verdicts go into a file as they come. That file is also what a filter goes on from that was killed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import torch

from score_video.errors import ScoreError
from score_video.files import check_output_file, output_file, write_errors
from score_video.progress import Progress
from score_video.rl.broken import encode_others
from score_video.rl.environment import Selection

if TYPE_CHECKING:
    import datasets

    from score_video.mllm.environment import MllmEnvironment
    from score_video.rl.data import OneQuestionEach

BATCH = 8
"""Questions asked at a time."""

ANSWERED = "answered without the video"
"""The reason why a question is left out, unless its video cannot be read."""

FRAMES, MAX_PIXELS = 2, 112 * 112
"""Of each video: nothing of it is shown, and so little of it is read."""


@dataclass
class Filtered:
    """What became of a file.

    Attributes:
        rows, questions: how many there were.
        kept_rows, kept_questions: how many are left.
        unreadable: of the questions, how many are about a video or image that cannot be read.
    """

    rows: int = 0
    questions: int = 0
    kept_rows: int = 0
    kept_questions: int = 0
    unreadable: int = 0


def run(
    source: str,
    environment: MllmEnvironment,
    output: Path,
    dropped: Path | None = None,
    *,
    split: str = "train",
    media: Path | None = None,
    skip_missing: bool = False,
    progress: Progress | None = None,
) -> Filtered:
    """Asks every question without any of the video's tokens, and writes the rows that are left.

    Until both files are written, the verdicts are in ``OUTPUT.unfinished``. Where that is there already, of the same
    questions and the same model, what it has is not asked again.

    Args:
        source, split, media, skip_missing: as for :func:`score_video.rl.data.load_examples`.
        environment: the model; ``num_frames`` and ``max_pixels`` may be small.
        output: JSONL of the rows whose questions need the video, with these questions alone, as ``score train`` reads
            them; paths are relative to its folder.
        dropped: JSONL of what was left out, each with its reason; None: nowhere.
        progress: told how far things are.

    Raises:
        ScoreError, OSError: a row that is wrong, or a file that cannot be written: neither file is then there.
    """
    if find_spec("datasets") is None:
        raise ScoreError("reading data needs datasets: install score-video[train]")
    import datasets

    from score_video.rl.data import OneQuestionEach, load_examples

    datasets.disable_progress_bars()  # there is one of ours
    check_outputs(output, dropped)
    loaded = load_examples(source, split=split, media=media, skip_missing=skip_missing)
    examples = loaded.cast_column("image", datasets.Image(decode=False))
    identity = _identity(examples, source, environment)
    unfinished = output.with_name(f"{output.name}.unfinished")
    _ask(environment, OneQuestionEach(examples), unfinished, identity, progress)
    found = _write(examples, unfinished, output, dropped)
    unfinished.unlink()
    return found


def check_outputs(output: Path, dropped: Path | None) -> None:
    """Raises ScoreError or OSError for files that could not be written, or are one."""
    outputs = [path for path in (output, dropped) if path is not None]
    for path in outputs:
        check_output_file(path)
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise ScoreError(f"--output and --dropped must be two files, got {output} twice")


def _identity(examples: datasets.Dataset, source: str, environment: MllmEnvironment) -> str:
    """A hash of all that the verdicts follow from, but the content of the videos.

    Raises:
        ScoreError: an image stands in its row and has no file.
    """
    digest = hashlib.sha256(json.dumps(environment.identity(), sort_keys=True).encode())
    for example in examples:
        if example["image"] is not None and example["image"]["bytes"] is not None:
            raise ScoreError(
                f"{source}: the image of {example['id']} stands in the row, and cannot be written to JSONL: "
                "take one with files"
            )
        digest.update(json.dumps(example).encode())
    return digest.hexdigest()


def _ask(
    environment: MllmEnvironment, each: OneQuestionEach, unfinished: Path, identity: str, progress: Progress | None
) -> None:
    """Writes a line with the identity, and then one for every batch: a list of verdicts."""
    done = _asked_before(unfinished, identity)
    with write_errors(unfinished, unfinished):
        file = unfinished.open("ab" if done else "wb")
    with file:
        if not done:
            _append(file, identity, unfinished)
        for begin in range(done, len(each), BATCH):
            some = [_as_asked(each[number]) for number in range(begin, min(begin + BATCH, len(each)))]
            _append(file, _verdicts(environment, some), unfinished)
            if progress:
                progress("questions", begin + len(some), len(each))


def _append(file: Any, value: Any, path: Path) -> None:
    with write_errors(path, path):
        file.write(json.dumps(value).encode() + b"\n")
        file.flush()


def _asked_before(unfinished: Path, identity: str) -> int:
    """How many verdicts of the same identity a file has; what a killed process wrote of a line is cut off."""
    try:
        file = unfinished.open("rb+")
    except FileNotFoundError:
        return 0
    with file:
        count, end = 0, len(first := file.readline())
        if first != json.dumps(identity).encode() + b"\n":
            return 0
        for line in file:
            try:
                verdicts = json.loads(line)
            except ValueError:
                break
            if not line.endswith(b"\n"):
                break
            count, end = count + len(verdicts), end + len(line)
        file.truncate(end)
    return count


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


def _write(examples: datasets.Dataset, unfinished: Path, output: Path, dropped: Path | None) -> Filtered:
    """Both files, each whole or not there."""
    found = Filtered(rows=len(examples))
    with ExitStack() as stack:
        left = _opened(output, stack)
        gone = None if dropped is None else _opened(dropped, stack)
        verdicts = _verdicts_in(stack.enter_context(unfinished.open("rb")))
        for example in examples:
            judged: dict[str | None, list[Any]] = {}
            for question in example["questions"]:
                judged.setdefault(next(verdicts), []).append(question)
            for verdict, questions in judged.items():
                found.questions += len(questions)
                if verdict is None:
                    found.kept_rows += 1
                    found.kept_questions += len(questions)
                    print(json.dumps(_about(example, output.parent) | {"questions": questions}), file=left)
                    continue
                found.unreadable += 0 if verdict == ANSWERED else len(questions)
                if dropped is not None:
                    about = _about(example, dropped.parent)
                    print(json.dumps(about | {"questions": questions, "reason": verdict}), file=gone)
    return found


def _opened(path: Path, stack: ExitStack) -> TextIO:
    """A file that is put in its place once all has succeeded."""
    return stack.enter_context(stack.enter_context(output_file(path)).open("w", encoding="utf-8"))


def _verdicts_in(file: Any) -> Iterator[str | None]:
    file.readline()  # the identity
    for line in file:
        yield from json.loads(line)


def _as_asked(example: Mapping[str, Any]) -> dict[str, Any]:
    """An example whose image is the path of a file, as it is in the other sources."""
    image = example["image"]
    return {**example, "image": None if image is None else image["path"]}


def _about(example: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """All but the questions; the path from a folder."""
    named = _as_asked(example)
    media = {kind: Path(named[kind]).resolve() for kind in ("video", "image") if named[kind] is not None}
    return {"id": named["id"], **{kind: os.path.relpath(path, folder.resolve()) for kind, path in media.items()}}
