"""Examples whose video or image cannot be read: one of them ends a run, or others are taken in their place.

Which others follows from the seed, the step and the place in the batch, as everything does that is drawn. So a run that
was killed and resumed trains on the same examples, and so do several processes together.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch.utils.data import Dataset

from score_video.errors import ScoreError
from score_video.rl.curriculum import Drawn, Examples, Item, ScheduledExamples, Unread, example_at
from score_video.rl.environment import EncodedBatch, Environment, Example, UnreadableError
from score_video.rl.rollouts import encode

ADVICE = "score data check finds all that are broken; with skip_broken others are taken in their place"


class BrokenExamples:
    """The examples that could not be read, and what a step does without them.

    Args:
        data: the examples of the training.
        skip: whether others are taken in their place; otherwise the first one is an error.

    Attributes:
        known: the reason for each, by (number of its data set, row). They are not tried again.
    """

    def __init__(self, data: ScheduledExamples, skip: bool) -> None:
        self._data, self._skip = data, skip
        self.known: dict[tuple[int, int], str] = {}
        self._new: list[tuple[int, int, str]] = []

    def encode(self, environment: Environment, drawn: Drawn) -> EncodedBatch:
        """What the environment makes of a process's part of a batch.

        Raises:
            ValueError: an example cannot be read, and is not to be skipped, or no example of its data set can be read;
                names the row and the file.
        """
        rows = [self._data.row_of(item) for item in drawn.items]
        others = [self._others(item) for item in drawn.items]
        examples: list[Example] = []
        for position, example in enumerate(drawn.examples):
            if isinstance(example, Unread):
                self._note(rows[position], example.reason)
            if isinstance(example, Unread) or rows[position] in self.known:
                rows[position], example = next(others[position])
            examples.append(example)
        while True:
            try:
                return encode(environment, examples)
            except UnreadableError as error:
                self._note(rows[error.position], str(error))
                rows[error.position], examples[error.position] = next(others[error.position])

    def share(self, gathered: Sequence[tuple[int, int, str]], main: bool) -> None:
        """Takes over what all processes have :meth:`found` since the last time; the main one warns."""
        for data, row, reason in gathered:
            if main:
                warnings.warn(f"skipped: {self._data.name_of(data, row)}: {reason}", stacklevel=2)
            self.known[data, row] = reason
        self._new = []

    @property
    def found(self) -> list[tuple[int, int, str]]:
        """What this process has found since :meth:`share`."""
        return self._new

    def state(self) -> dict[str, Any]:
        """For a checkpoint; :meth:`restore` takes it."""
        examples = [{"data": data, "row": row, "reason": reason} for (data, row), reason in sorted(self.known.items())]
        return {"args": {}, "attributes": {"count": len(examples), "examples": examples}}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Takes up what a checkpoint holds."""
        self.known = {(entry["data"], entry["row"]): entry["reason"] for entry in state["attributes"]["examples"]}

    def _note(self, row: tuple[int, int], reason: str) -> None:
        if not self._skip:
            raise ScoreError(f"{self._data.name_of(*row)}: {reason} ({ADVICE})")
        if row not in self.known:
            self.known[row] = reason
            self._new.append((*row, reason))

    def _others(self, item: int) -> Iterator[tuple[tuple[int, int], Example]]:
        """Rows that can be taken for an item's, and their examples."""
        for row in self._data.others(item):
            if row in self.known:
                continue
            try:
                example = self._data.read(item, row[1])
            except UnreadableError as error:
                self._note(row, str(error))
            else:
                yield row, example
        first = self._data.row_of(item)
        raise ScoreError(f"{self._data.name_of(first[0])}: no example of it can be read; one: {self.known[first]}")


class NumberedExamples(Dataset[Item]):
    """Some rows of a data set, for an evaluation; what cannot be read is an :class:`Unread`."""

    def __init__(self, data: Examples, rows: Sequence[int]) -> None:
        self._data, self._rows = data, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> Item:
        row = self._rows[number]
        try:
            return Item(example_at(self._data, row), 0, row)
        except UnreadableError as error:
            return Item(Unread(str(error)), 0, row)


def encode_readable(environment: Environment, drawn: Drawn, skip: bool) -> tuple[EncodedBatch | None, int]:
    """A batch of an evaluation, without the examples that cannot be read.

    Returns:
        what the environment makes of the others, None if there are none; and how many were left out.

    Raises:
        ValueError: there are such, and they are not to be skipped; names the row.
    """
    rows, examples = list(drawn.items), list(drawn.examples)

    def leave_out(position: int, reason: str) -> None:
        where = f"row {rows[position] + 1} of the evaluation's data"
        if not skip:
            raise ScoreError(f"{where}: {reason} ({ADVICE})")
        warnings.warn(f"skipped: {where}: {reason}", stacklevel=3)
        del rows[position], examples[position]

    for position in reversed(range(len(examples))):
        if isinstance(unread := examples[position], Unread):
            leave_out(position, unread.reason)
    return encode_others(environment, examples, leave_out), len(drawn.items) - len(rows)


def encode_others(
    environment: Environment, examples: Sequence[Any], leave_out: Callable[[int, str], None]
) -> EncodedBatch | None:
    """A batch of what is left of examples once those that cannot be read are out; None: nothing is.

    Args:
        leave_out: takes an example out of ``examples``, by its position and the reason; or raises.
    """
    while examples:
        try:
            return encode(environment, examples)
        except UnreadableError as error:
            leave_out(error.position, str(error))
    return None
