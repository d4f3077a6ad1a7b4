"""Jobs, and the code that they run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from score_video.errors import ScoreError
from score_video.provenance import commit_of, uncommitted

ROOT = Path(__file__).parent.parent
Result = dict[str, Any]
Files = Mapping[str, Path]
"""The files that jobs read, readers and media, by the fingerprints that stand for them in parameters."""

# What decides a result: the package but for the rooms that no job enters, and what a worker process runs.
_WORK = tuple(f"evaluation/{name}.py" for name in ("jobs", "pool", "statistics", "work", "worlds"))
_SOURCES = ("CMakeLists.txt", "cmake", "csrc", "score_ext", "python/score_video", *_WORK)
_ROOMS = ("cli.py", "app", "benchmarks", "commands", "drawing", "evaluation_harness", "mllm", "serving")
_NOT_RUN = ("csrc/cuda", "csrc/ops_cuda.cpp", *(f"python/score_video/{room}" for room in _ROOMS))
_SUFFIXES = {".py", ".cpp", ".h", ".txt", ".cmake"}


class StudyError(ScoreError):
    """The study cannot be run, or its document not be written; the message says what is wanted."""


def sources(root: Path = ROOT) -> Iterator[str]:
    """The files whose content decides results, as paths from the root of the checkout, in order."""
    below = [path for name in _SOURCES for path in (root / name, *(root / name).rglob("*"))]
    names = sorted({path.relative_to(root).as_posix() for path in below if path.suffix in _SUFFIXES and path.is_file()})
    return (name for name in names if not any(name == other or name.startswith(f"{other}/") for other in _NOT_RUN))


@dataclass(frozen=True)
class Code:
    """The code at hand.

    Attributes:
        hash: 12 hexadecimal digits, of the paths and contents of :func:`sources`.
        commit: the one that the checkout is at.
        changed: what differs from it of these and of the study's own files, results aside; a line that says so where
            there is no git to tell.
        root: the checkout.
    """

    hash: str
    commit: str
    changed: tuple[str, ...]
    root: Path | None = None

    @staticmethod
    def of(root: Path = ROOT) -> Code:
        """That of a checkout."""
        digest = hashlib.sha256()
        for name in sources(root):
            content = (root / name).read_bytes()
            digest.update(f"{name}\0{len(content)}\0".encode() + content)
        changed = uncommitted(root, [*_SOURCES, "evaluation", ":(exclude)evaluation/results"])
        told = ["everything, as far as can be told: this is no git checkout"] if changed is None else changed
        return Code(digest.hexdigest()[:12], commit_of(root), tuple(told), root)


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        function: a function of :mod:`evaluation.work`.
        parameters: all that its result depends on but the code; JSON. Files are in it by their fingerprints.
        code: hash of the code that it runs.
        tags: what the document knows it by; no part of its identity.
    """

    function: str
    parameters: Mapping[str, Any]
    code: str
    tags: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def work(self) -> str:
        """Equal for equal work, whatever the code."""
        return json.dumps([self.function, self.parameters], sort_keys=True)

    @property
    def key(self) -> str:
        """Equal for equal work by equal code."""
        return f"{self.function}-{hashlib.sha256((self.work + self.code).encode()).hexdigest()[:12]}"

    @property
    def label(self) -> str:
        """For people, on one line."""
        return " ".join([self.function, *(str(value) for value in self.tags.values())])
