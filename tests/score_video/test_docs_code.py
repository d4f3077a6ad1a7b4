"""Every Python block in the documents runs as it stands, or is marked there as needing a model that is not here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from helpers.numbered import write_numbered

ROOT = Path(__file__).resolve().parents[2]
MARK = "<!-- needs a model -->"
DOCUMENTS = sorted(path for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")) if "```python" in path.read_text())


def blocks(path: Path) -> list[tuple[int, bool, str]]:
    """(line, whether it is to run, code) of each Python block."""
    found, lines = [], path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if line.strip() == "```python":
            end = lines.index("```", number)
            found.append((number + 1, lines[number - 1].strip() != MARK, "\n".join(lines[number + 1 : end])))
    return found


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_blocks_run_in_order(path: Path, tmp_path: Path) -> None:
    """In a process of its own: what one block registers is there for the next, and for nobody else."""
    for clip in ("holiday.mp4", "clip.mp4"):
        write_numbered(tmp_path / clip, range(40), range(40), rate=10, options={"preset": "ultrafast"})
    run = []
    for line, runs, code in blocks(path):
        compile(code, f"{path.name}:{line}", "exec")
        if runs:
            run.append(code)
    if not run:
        return
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:__main__", "-c", "\n\n".join(run)],
        cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_readme_begins_with_what_a_newcomer_needs() -> None:
    """What it does, a picture, imports, two commands, the status, what differs from the paper; then the rest."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    first = (
        "](docs/contact.jpg)",
        "make demo",
        "from score_video import",
        "## Status",
        "## What differs",
        "## Install",
    )
    places = [text.index(part) for part in first]
    assert places == sorted(places)
    status = text[: text.index("## Status")]
    assert status.count("\n") < 60
    for part in ("split advantage and the curriculum", "off by default"):
        assert part in text[text.index("## What differs") : text.index("## Install")]
