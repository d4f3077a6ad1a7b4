"""Runs what the page offers to take along."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path


def printed(code: str, folder: Path) -> list[str]:
    """The lines that Python code prints, run in a folder."""
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(code, "exported", "exec"), {})
    return out.getvalue().splitlines()
