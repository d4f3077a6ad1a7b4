"""Examples to train on: videos or images with questions and answers, from JSONL, a Hugging Face dataset, or the field's
own files.

Every row is checked when it is loaded (:mod:`score_video.rl.rows`), so that a mistake in the last line does not end a
run after hours. Rows are read one by one, and those of a large set are kept on disk, from where a training takes them
by their number (:mod:`score_video.rl.arrow_rows`): memory does not grow with the set.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from score_video.errors import ScoreError
from score_video.rl.arrow_rows import to_dataset
from score_video.rl.row_schema import NoMediaError
from score_video.rl.rows import rows_of

if TYPE_CHECKING:
    import datasets

    from score_video.rl.curriculum import Examples


def load_examples(
    source: str | Path, *, split: str = "train", media: str | Path | None = None, skip_missing: bool = False
) -> datasets.Dataset:
    """Loads and checks examples.

    Args:
        source: a ``.jsonl``, ``.json``, ``.csv`` or ``.parquet`` file, a folder made by ``Dataset.save_to_disk``, or
            the id of a data set on the Hugging Face hub; with rows as docs/training.md describes them, or of one of
            :data:`score_video.rl.formats.FORMATS`.
        split: the split to load of a data set on the hub.
        media: the folder that relative paths start from; None: the file's, or the current one for a hub data set.
        skip_missing: leave rows out whose video or image is not there, or that name none, with a warning that counts
            them.

    Returns:
        a ``datasets.Dataset`` with the columns ``id`` (str; the row's number where there is none), ``video`` (path or
        None), ``image`` (PIL image or None) and ``questions`` (list of ``{"question", "answer", "options"}``; no
        options is an empty list).

    Raises:
        ValueError: a row is wrong; the text names the file, the line (the row, where there are no lines) and the key.
        FileNotFoundError: there is no such file, or, with its row, no such video or image.
    """
    left_out: list[str] = []  # how many, and of the first one why

    def examples() -> Iterator[dict[str, Any]]:
        number = 0
        for _, make in rows_of(source, split=split, media=media):
            try:
                yield make()
            except (FileNotFoundError, NoMediaError) as error:
                if not skip_missing:
                    raise
                number += 1
                left_out[:] = [str(number), left_out[1] if left_out else str(error)]

    loaded = to_dataset(examples(), str(source), (Path(source).absolute(), split, media, skip_missing))
    if left_out:
        number, first = left_out
        said = f"{source}: {number} rows are left out, without a video or image that is there; the first: {first}"
        warnings.warn(said, stacklevel=2)
    return loaded


class MixedExamples:
    """Several sets of examples as one, of which each has a share. Map-style.

    As long as it takes for every example to come at least once; of sets that are small beside their share examples
    come several times. In which order they come is the curriculum's.

    Args:
        sets: examples, and the weight of each set, above 0.

    Raises:
        ValueError: no sets, or a weight that is not above 0.
    """

    def __init__(self, sets: Iterable[tuple[Examples, float]]) -> None:
        self.sets = list(sets)
        weights = [weight for _, weight in self.sets]
        if not weights or not all(0 < weight < float("inf") for weight in weights):
            raise ScoreError(f"weights must be finite and above 0, got {weights}")
        shares = [weight / sum(weights) for weight in weights]
        total = max(len(examples) / share for (examples, _), share in zip(self.sets, shares, strict=True))
        counts = [
            max(len(examples), round(total * share)) for (examples, _), share in zip(self.sets, shares, strict=True)
        ]
        self._ends = [sum(counts[: number + 1]) for number in range(len(counts))]

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, number: int) -> Mapping[str, Any]:
        """Example ``number``, from 0. Raises IndexError where there is none."""
        examples, row = self.origin(number)
        return examples[row]

    def origin(self, number: int) -> tuple[Examples, int]:
        """The data set that an example is of, and its row there."""
        if not 0 <= number < len(self):
            raise IndexError(f"number must be from 0 to {len(self) - 1}, got {number}")
        which = next(place for place, end in enumerate(self._ends) if number < end)
        examples, _ = self.sets[which]
        begin = self._ends[which - 1] if which else 0
        return examples, (number - begin) % len(examples)


class OneQuestionEach:
    """A data set in which each example asks one question: one with several comes as often as it has questions.

    For policies that see the question. Map-style.

    Args:
        examples: what :func:`load_examples` returned.
    """

    def __init__(self, examples: datasets.Dataset) -> None:
        self.examples = examples
        counts = (len(row["questions"]) for row in examples.select_columns("questions"))
        self._ends = np.fromiter(counts, np.int64, len(examples)).cumsum()  # where each row's questions end

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> dict[str, Any]:
        row, question = self._place(number)
        example = self.examples[row]
        return {**example, "questions": [example["questions"][question]]}

    def origin(self, number: int) -> tuple[Examples, int]:
        """The data set that an example is made of, and its row there."""
        return self.examples, self._place(number)[0]

    def _place(self, number: int) -> tuple[int, int]:
        """Row, and which of its questions."""
        if not 0 <= number < len(self):
            raise IndexError(f"number must be from 0 to {len(self) - 1}, got {number}")
        row = int(np.searchsorted(self._ends, number, "right"))
        return row, number - int(self._ends[row - 1] if row else 0)
