"""A model that sees nothing and knows the answers that say so, for filters of many questions. As a program it filters:

    python blind.py SOURCE OUTPUT [QUESTIONS]

and prints by how many MiB its memory grew, and how many questions it was asked. It is killed by SIGKILL in the midst of
the batch after QUESTIONS.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from score_video.commands import filter as filter_command
from score_video.packed import PackedVideos
from score_video.rl.environment import EncodedBatch, Example, Outcome, Selection


class BlindEnvironment:
    """Of a question whose answer is "known" it is right. Counts what it is asked, and dies after ``last`` of it."""

    def __init__(self, last: int | None = None, name: str = "blind") -> None:
        self.asked, self._last, self._name = 0, last, name

    def identity(self) -> dict[str, Any]:
        return {"model": self._name}

    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        packed = PackedVideos.from_grids(torch.zeros(len(examples), 2), [(1, 1, 1)] * len(examples))
        return EncodedBatch(packed, [example["questions"][0]["answer"] == "known" for example in examples])

    def answer(self, batch: EncodedBatch, selection: Selection, **_: bool) -> Outcome:
        self.asked += len(batch.payload)
        if self._last is not None and self.asked > self._last:
            os.kill(os.getpid(), signal.SIGKILL)
        correct = torch.tensor([batch.payload]).float()
        return Outcome(correct - 1, correct)


def anonymous() -> int:
    """Bytes of memory that no file can be read into again."""
    with Path("/proc/self/status").open() as status:
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def main(source: str, output: str, last: str | None = None) -> None:
    for module in ("datasets", "pyarrow.parquet", "score_video.rl.data"):  # what takes memory itself
        import_module(module)
    environment: Any = BlindEnvironment(None if last is None else int(last))
    before, most, done = anonymous(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            most[0] = max(most[0], anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    filter_command.run(source, environment, Path(output))
    done.set()
    watcher.join()
    print((most[0] - before) // 2**20, environment.asked)


if __name__ == "__main__":
    main(*sys.argv[1:])
