"""Examples to train on: videos or images with questions and answers, from JSONL, a Hugging Face dataset, or the field's
own files.

Every row is checked when it is loaded (:mod:`score_video.rl.rows`), so that a mistake in the last line does not end a
run after hours.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_video.errors import ScoreError
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
        skip_missing: leave rows out whose video or image is not there, with a warning that counts them.

    Returns:
        a ``datasets.Dataset`` with the columns ``id`` (str; the row's number where there is none), ``video`` (path or
        None), ``image`` (PIL image or None) and ``questions`` (list of ``{"question", "answer", "options"}``; no
        options is an empty list).

    Raises:
        ValueError: a row is wrong; the text names the file, the line (the row, where there are no lines) and the key.
        FileNotFoundError: there is no such file, or, with its row, no such video or image.
    """
    examples, missing = [], []
    for where, make in rows_of(source, split=split, media=media):
        try:
            examples.append(make())
        except FileNotFoundError as error:
            if not skip_missing:
                raise
            missing.append(f"{where}: {error}")
    if missing:
        warnings.warn(
            f"{source}: {len(missing)} rows are left out, whose files are missing; the first: {missing[0]}",
            stacklevel=2,
        )
    return _to_dataset(examples, str(source))


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
        self._places = [
            (row, question) for row, questions in enumerate(examples["questions"]) for question in range(len(questions))
        ]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, number: int) -> dict[str, Any]:
        row, question = self._places[number]
        example = self.examples[row]
        return {**example, "questions": [example["questions"][question]]}

    def origin(self, number: int) -> tuple[Examples, int]:
        """The data set that an example is made of, and its row there."""
        return self.examples, self._places[number][0]


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
