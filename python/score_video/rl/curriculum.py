"""Which examples each step sees: the stages of the curriculum, and the order and the seeds of everything drawn.

The step alone decides. Item i of :class:`ScheduledExamples` is example ``i % batch`` of the batch of optimiser step
``i // batch``; its stage, its place in the stage's shuffled data and its random numbers are functions of the seed, the
step and that position, and of nothing that happened before. So a resumed run sees what the uninterrupted one saw, and
several processes see what one would.

SCORE's curriculum goes "from static pseudo-videos to real dynamic videos" (arXiv 2603.26365); what its stages hold is
not published, ``STAGES`` is our reading. To add one: write a function (example, seed, options) -> example, add it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from score_video.checks import check_integer, is_fraction
from score_video.errors import ScoreError
from score_video.rl.environment import Example, UnreadableError
from score_video.rl.pseudo_video import pseudo_video

Transform = Callable[..., Example]
"""(example, seed from 0 to 2^63 - 1, **the stage's options) -> the example as the environment gets it."""


class Examples(Protocol):
    """A map-style data set: ``datasets.Dataset``, ``torch.utils.data.Dataset`` with a length, or a list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


def as_video(example: Example, seed: int) -> Example:
    """Stage ``video``: the example as it is."""
    return example


def as_pseudo_video(example: Example, seed: int, frames: int = 16, motion: str = "mixed") -> Example:
    """Stage ``pseudo_video``: the still of the example, as :func:`score_video.rl.pseudo_video.pseudo_video` moves it.

    The still is ``image`` (a path, a PIL image, or pixels [H, W, 3]), or one of ``frames`` (pixels [T, H, W, 3]), drawn
    by the seed. It goes, and ``frames``, uint8 or float [T, H, W, 3], comes in its place.

    Raises:
        ValueError: the example has neither.
    """
    if example.get("image") is not None:
        still = _pixels(example["image"])
    elif example.get("frames") is not None and len(example["frames"]) > 0:
        still = torch.as_tensor(example["frames"][seed % len(example["frames"])])
    else:
        name = f" {example['id']}" if "id" in example else ""
        raise ScoreError(f"example{name} of the stage pseudo_video must have an image or frames, got {list(example)}")
    rest = {key: value for key, value in example.items() if key not in ("image", "video", "frames")}
    return {**rest, "frames": pseudo_video(still, frames, motion, seed=seed)}


def _pixels(image: Any) -> Tensor:
    """A path, a PIL image, an array or a tensor -> [H, W, 3]. Raises UnreadableError for a damaged image."""
    from PIL import Image

    if isinstance(image, (str, Path)):
        try:
            with Image.open(image) as opened:
                return torch.from_numpy(np.array(opened.convert("RGB")))
        except image_errors() as error:
            raise UnreadableError(f"{image}: {why_unreadable(error)}") from error
    if isinstance(image, Image.Image):
        try:
            return torch.from_numpy(np.array(image.convert("RGB")))
        except image_errors() as error:
            raise UnreadableError(f"its image: {why_unreadable(error)}") from error
    return torch.as_tensor(image)


def image_errors() -> tuple[type[Exception], ...]:
    """What Pillow raises for an image that is damaged, cut off, absurdly large, or none."""
    import struct
    import zlib

    from PIL import Image

    return (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def why_unreadable(error: Exception) -> str:
    """What one of them says, in one line, of an image whose name is known."""
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "not an image, or damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def example_at(data: Examples, row: int) -> Example:
    """A row of a data set, whose image may be decoded only now.

    Raises:
        UnreadableError: that cannot be done; names the file, where it is known.
    """
    try:
        return data[row]
    except image_errors() as error:
        source = _image_file(data, row)
        if source is None:  # of a data set that does something else when it is read
            raise
        raise UnreadableError(f"{source}: {why_unreadable(error)}") from error


def _image_file(data: Any, row: int) -> str | None:
    """Where a row of a ``datasets.Dataset`` has its image from, without decoding it; None for other data sets."""
    import datasets

    while hasattr(data, "origin"):  # a view of others
        data, row = data.origin(row)
    if not isinstance(data, datasets.Dataset) or not isinstance(data.features.get("image"), datasets.Image):
        return None
    image = data.cast_column("image", datasets.Image(decode=False))[row]["image"]
    return None if image is None else image["path"] or "its image"


STAGES: dict[str, Transform] = {"pseudo_video": as_pseudo_video, "video": as_video}

STAGE_KEYS = ("name", "steps", "retention", "data")
"""What every stage of a configuration may have; its transform's options beside."""


@dataclass(frozen=True)
class Stage:
    """A part of the training.

    Attributes:
        name: a name in ``STAGES``.
        steps: optimiser steps that it lasts; None, only for the last: all that are left.
        retention: its training budget, in (0, 1]; None: the configuration's.
        data: which of several training data sets it takes; None: the one called as it is.
        options: keyword arguments of the stage's transform.
    """

    name: str
    steps: int | None = None
    retention: float | None = None
    data: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def parse_stages(stages: Sequence[Mapping[str, Any]], num_iterations: int = 1) -> tuple[Stage, ...]:
    """Reads the configuration's list of ``{name, steps, retention, data, and the options of the transform}``.

    Raises:
        ValueError: names the stage and what is wrong with it.
    """
    if not isinstance(stages, Sequence) or isinstance(stages, str) or not stages:
        raise ScoreError(f"stages must be a list of at least one stage, got {stages!r}")
    return tuple(
        _parse_stage(stage, f"stages[{number}]", number == len(stages) - 1, num_iterations)
        for number, stage in enumerate(stages)
    )


def _parse_stage(stage: Mapping[str, Any], where: str, last: bool, num_iterations: int) -> Stage:
    if not isinstance(stage, Mapping):
        raise ScoreError(f"{where} must be a mapping with a name, got {stage!r}")
    name, steps, retention = stage.get("name"), stage.get("steps"), stage.get("retention")
    if name not in STAGES:
        raise ScoreError(f"{where}: name must be one of {', '.join(STAGES)}, got {name!r}")
    if steps is None and not last:
        raise ScoreError(f"{where}: steps must be given for every stage but the last")
    if steps is not None:
        check_integer(f"{where}: steps", steps, 1)
    if steps is not None and steps % num_iterations:
        raise ScoreError(f"{where}: steps must be a multiple of num_iterations ({num_iterations}), got {steps}")
    if retention is not None and not is_fraction(retention):
        raise ScoreError(f"{where}: retention must be a number in (0, 1], got {retention!r}")
    if stage.get("data") is not None and not isinstance(stage["data"], str):
        raise ScoreError(f"{where}: data must be the name of a training data set, got {stage['data']!r}")
    options = {key: value for key, value in stage.items() if key not in STAGE_KEYS}
    known = list(inspect.signature(STAGES[name]).parameters)[2:]  # after the example and the seed
    for option in options:
        if option not in known:
            raise ScoreError(f"{where}: there is no option {option!r}; there are {', '.join([*STAGE_KEYS, *known])}")
    return Stage(name, steps, retention, stage.get("data"), options)


def data_of_stages(stages: Sequence[Stage], data: Examples | Mapping[str, Examples]) -> list[Examples]:
    """The data set of each stage, of one for all, or of several by name.

    Raises:
        ValueError: a stage's data set is not there, or one is there that no stage takes.
    """
    if not isinstance(data, Mapping):
        if named := next((stage for stage in stages if stage.data is not None), None):
            raise ScoreError(
                f"train_dataset must have data sets by name for the stage with data {named.data!r}, got one"
            )
        return [data] * len(stages)
    wanted = [stage.data or stage.name for stage in stages]
    if set(wanted) != set(data):
        raise ScoreError(
            f"train_dataset must have the data sets {', '.join(dict.fromkeys(wanted))}, as the stages "
            f"do, got {', '.join(data)}"
        )
    return [data[name] for name in wanted]


class Schedule:
    """The stages laid out over the steps.

    Args:
        stages: the stages, in order.
        max_steps: optimiser steps of the whole training.

    Raises:
        ValueError: the stages do not last exactly ``max_steps`` steps.
    """

    def __init__(self, stages: Sequence[Stage], max_steps: int) -> None:
        given = sum(stage.steps or 0 for stage in stages)
        open_end = stages[-1].steps is None
        if given >= max_steps if open_end else given != max_steps:
            wanted = f"leave some of the {max_steps} steps (max_steps) to the last" if open_end else "last max_steps"
            raise ScoreError(f"stages must {wanted} steps in all, got {given} of {max_steps}")
        self.stages = tuple(stages)
        self.max_steps = max_steps
        lengths = [stage.steps or max_steps - given for stage in stages]
        self.first_steps = [sum(lengths[:number]) for number in range(len(lengths))]

    def number_at(self, step: int) -> int:
        """The number, from 0, of the stage that a step (from 0) belongs to."""
        return max(number for number, first in enumerate(self.first_steps) if first <= step)


@dataclass(frozen=True)
class Unread:
    """Stands in a batch for an example that could not be read, and says why."""

    reason: str


class Item(NamedTuple):
    """An example, its video's seed, from 0 to 2^63 - 1, and its number in the data set that it comes from."""

    example: Example | Unread
    seed: int
    number: int


@dataclass(frozen=True)
class Drawn:
    """One process's part of a batch: of each :class:`Item` the example, the seed and the number."""

    examples: list[Example | Unread]
    seeds: list[int]
    items: list[int]


class ScheduledExamples(Dataset[Item]):
    """All examples of a training, in the order in which they are seen; read it sequentially.

    With ``num_iterations`` m, m steps in a row see the same batch: they share a rollout.

    Args:
        data: one data set for each stage.
        schedule: the stages.
        batch: examples of an optimiser step, over all processes.
        num_iterations: optimiser steps that a rollout is used for.
        seed: the seed that all examples are drawn by.
    """

    def __init__(
        self, data: Sequence[Examples], schedule: Schedule, batch: int, num_iterations: int = 1, seed: int = 0
    ) -> None:
        for stage, examples in zip(schedule.stages, data, strict=True):
            if len(examples) == 0:
                raise ScoreError(f"train_dataset must have examples for the stage {stage.name}, got none")
        self.data, self.schedule, self.batch, self.num_iterations, self.seed = (
            data,
            schedule,
            batch,
            num_iterations,
            seed,
        )
        self._order: tuple[tuple[int, int], np.ndarray[Any, np.dtype[np.int64]]] | None = None

    def __len__(self) -> int:
        return self.schedule.max_steps * self.batch

    def __getitem__(self, item: int) -> Item:
        """The example, through its stage's transform, and its video's seed."""
        seed = video_seed(self.seed, item // self.batch // self.num_iterations, item % self.batch)
        try:
            return Item(self.read(item, self.row_of(item)[1]), seed, item)
        except UnreadableError as error:
            return Item(Unread(str(error)), seed, item)

    def read(self, item: int, row: int) -> Example:
        """An example of the item's stage, as it is in the item's place. Raises UnreadableError."""
        step, position = divmod(item, self.batch)
        number = self.schedule.number_at(step)
        stage, seed = self.schedule.stages[number], video_seed(self.seed, step // self.num_iterations, position)
        return STAGES[stage.name](example_at(self.data[number], row), seed, **stage.options)

    def row_of(self, item: int) -> tuple[int, int]:
        """The number of the item's data set (of several stages' own the first one's), and the row in it."""
        step, position = divmod(item, self.batch)
        number = self.schedule.number_at(step)
        rollout = step // self.num_iterations
        first_rollout = self.schedule.first_steps[number] // self.num_iterations
        epoch, place = divmod((rollout - first_rollout) * self.batch + position, len(self.data[number]))
        # through int: not every data set takes numpy's
        return self._data_number(number), int(self._shuffled(number, epoch)[place])

    def others(self, item: int) -> Iterator[tuple[int, int]]:
        """All other rows of the item's data set, as :meth:`row_of` has them, in an order that is the item's own."""
        step, position = divmod(item, self.batch)
        first = self.row_of(item)
        drawn = np.random.SeedSequence([self.seed, step // self.num_iterations, position, 1])
        generator = np.random.Generator(np.random.Philox(drawn))
        for row in generator.permutation(len(self.data[first[0]])):
            if row != first[1]:
                yield first[0], int(row)

    def name_of(self, number: int, row: int | None = None) -> str:
        """Of a data set, or of one of its rows, to be shown."""
        stage = self.schedule.stages[number]
        several = any(data is not self.data[0] for data in self.data)
        name = f"the training data {stage.data or stage.name}" if several else "the training data"
        return name if row is None else f"row {row + 1} of {name}"

    def _data_number(self, stage: int) -> int:
        return next(number for number, data in enumerate(self.data) if data is self.data[stage])

    def _shuffled(self, number: int, epoch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """The order in which a stage's data is seen in one of its epochs; the latest is kept."""
        if self._order is None or self._order[0] != (number, epoch):
            generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([self.seed, number, epoch])))
            self._order = (number, epoch), generator.permutation(len(self.data[number]))
        return self._order[1]


def collate(items: Sequence[Item]) -> dict[str, Drawn]:
    """What a data loader yields: a mapping, as Trainer asks, around what it must not look into."""
    examples, seeds, numbers = zip(*items, strict=True)
    return {"drawn": Drawn([*examples], [*seeds], [*numbers])}


def video_seed(seed: int, rollout: int, position: int) -> int:
    """The seed of a video's samples and of its transform: 63 bits of numpy's SeedSequence of the three numbers.

    Args:
        seed: the training's.
        rollout: number of the rollout, ``step // num_iterations``.
        position: the video's place in the batch over all processes.
    """
    word: int = np.random.SeedSequence([seed, rollout, position]).generate_state(1, np.uint64).item()
    return word >> 1
