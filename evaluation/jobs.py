"""Jobs: a named function of :mod:`evaluation.work`, its parameters, and the file that its result is kept in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Result = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One piece of work.

    Attributes:
        function: a function of :mod:`evaluation.work`.
        parameters: all that its result depends on; JSON. Files are in it by :func:`fingerprint`.
        tags: what the report knows it by; no part of its identity.
    """

    function: str
    parameters: Mapping[str, Any]
    tags: Mapping[str, Any] = field(default_factory=dict, compare=False)

    @property
    def key(self) -> str:
        """Equal for equal work."""
        text = json.dumps([self.function, self.parameters], sort_keys=True)
        return f"{self.function}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def file(self, folder: Path) -> Path:
        """Where its result is kept."""
        return folder / f"{self.key}.json"

    @property
    def label(self) -> str:
        """For people, on one line."""
        return " ".join([self.function, *(str(value) for value in self.tags.values())])


@dataclass(frozen=True)
class Files:
    """The files that jobs read, by the fingerprints that stand for them in parameters."""

    readers: Mapping[str, Path]
    footage: Mapping[str, Path]


def fingerprint(path: Path, name: str | None = None) -> str:
    """``name@12 hexadecimal digits`` of the file's content: another content is another parameter."""
    return f"{name or path.stem}@{hashlib.sha256(path.read_bytes()).hexdigest()[:12]}"


def save_json(path: Path, value: Any) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_text(json.dumps(value) + "\n")
    temporary.replace(path)


def load_results(folder: Path, jobs: list[Job]) -> dict[str, Result]:
    """Results by the keys of their jobs; of jobs that have one."""
    found = {job.key: job.file(folder) for job in jobs}
    return {key: json.loads(file.read_text()) for key, file in found.items() if file.is_file()}
