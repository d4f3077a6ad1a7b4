"""What a harness's samples are logged with: tokens kept, retention, and where the time went."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any

from score_video.evaluation_harness.smaller import SmallerVideos
from score_video.mllm.wrapping import Wrapping
from score_video.progress import synchronize

Key = tuple[str, str, Any]
"""Task, split, number of the document."""


class Recorder:
    """Stands between a harness's model class and the ``generate`` of its model, and notes each call.

    The harness's own classes look up a batch of documents, read and preprocess them, and call ``generate`` once: the
    documents looked up since the last call are the rows of this one.
    """

    def __init__(self, model: Any, wrapping: Wrapping | None, smaller: SmallerVideos | None = None) -> None:
        """
        Args:
            model: the one whose ``generate`` is called; from now on through the recorder.
            wrapping: what compresses in it; None: nothing does.
            smaller: what makes the videos smaller before the model gets them; None: nothing does.
        """
        self._model = model
        self._wrapping = wrapping
        self._smaller = smaller
        self._generate = model.generate
        self._rows: list[Key] = []
        self._began = 0.0
        self._records: dict[Key, deque[dict[str, Any]]] = defaultdict(deque)
        model.generate = self.generate

    def looked_up(self, key: Key) -> None:
        """A document goes into the next call."""
        if not self._rows:
            self._began = time.perf_counter()
        self._rows.append(key)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """The model's ``generate``, noted."""
        first = _FirstPass(self._model)
        start = time.perf_counter()
        with first:
            output = self._generate(*args, **kwargs)
        synchronize(self._model.device)
        end = time.perf_counter()
        rows, self._rows = self._rows, []
        inner = {} if self._wrapping is None else self._wrapping.milliseconds
        milliseconds = {"read": 1000 * (start - self._began) if rows else 0.0}
        milliseconds |= {name: inner[name] for name in ("vision tower", "compression") if name in inner}
        milliseconds |= {"prefill": 1000 * first.seconds, "first token": 1000 * (first.end - start)}
        milliseconds["answer"] = 1000 * (end - start)
        rounded = {name: round(value, 3) for name, value in milliseconds.items()}
        for key, tokens in zip(rows, self._tokens(len(rows)), strict=True):
            self._records[key].append({**tokens, "batch": len(rows), "milliseconds": rounded})
        return output

    def take(self, key: Key) -> dict[str, Any] | None:
        """The record of a document's next answer, as JSON; None: it was answered without the model (a cache).

        ``tokens``, ``kept`` and ``retention`` of its videos, where they were compressed; ``batch``, how many were
        answered together; ``milliseconds`` of that batch: "read" (the files are decoded and preprocessed), "vision
        tower", "compression", "prefill" (the first pass of the model; where nothing compresses some families run the
        vision tower in it), "first token" (from the inputs to the end of that pass), "answer" (to the last token).
        """
        return self._records[key].popleft() if self._records.get(key) else None

    def _tokens(self, rows: int) -> list[dict[str, Any]]:
        """Of each row; without counts where it cannot be told which videos are whose."""
        latest = None if self._wrapping is None else self._wrapping.latest
        if latest is None or latest.selected is None or latest.videos is None:
            return [{}] * rows
        kept, tokens = latest.selected.keep.tolist(), latest.videos.lengths.tolist()
        if self._smaller is not None:
            tokens = [round(n * share) for n, share in zip(tokens, self._smaller.shares, strict=True)]
        if rows == 1:
            kept, tokens = [sum(kept)], [sum(tokens)]
        if len(kept) != rows:
            return [{}] * rows
        return [{"tokens": n, "kept": k, "retention": k / n} for k, n in zip(kept, tokens, strict=True)]


class Watched(Mapping[Any, Any]):
    """The harness's documents, by task, then split, then number, of which each that is looked up is told."""

    def __init__(self, values: Any, recorder: Recorder, path: tuple[Any, ...] = ()) -> None:
        self._values = values
        self._recorder = recorder
        self._path = path

    def __getitem__(self, key: Any) -> Any:
        path = (*self._path, key)
        if len(path) == 3:
            self._recorder.looked_up(path)
            return self._values[key]
        return Watched(self._values[key], self._recorder, path)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class _FirstPass:
    """While it is entered: when a model's first forward pass ends, and how long it takes."""

    def __init__(self, model: Any) -> None:
        self.seconds = 0.0
        self.end = time.perf_counter()
        self._begin = 0.0
        self._model = model
        self._hooks: list[Any] = []

    def __enter__(self) -> None:
        self._hooks = [
            self._model.register_forward_pre_hook(self._before),
            self._model.register_forward_hook(self._after),
        ]

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _before(self, model: Any, args: Any) -> None:
        synchronize(model.device)
        self._begin = time.perf_counter()

    def _after(self, model: Any, args: Any, output: Any) -> None:
        synchronize(model.device)
        self.end = time.perf_counter()
        self.seconds = self.end - self._begin
        self.__exit__()
