"""What a folder holds, to see whether a command that was refused has changed anything."""

from __future__ import annotations

from pathlib import Path

Snapshot = dict[str, tuple[bytes | None, int]]


def snapshot(folder: Path) -> Snapshot:
    """Of each file below it the content and when it was written; of folders that they are there."""
    found: Snapshot = {}
    for path in sorted(folder.rglob("*")):
        content = None if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(folder))] = content, 0 if content is None else path.stat().st_mtime_ns
    return found
