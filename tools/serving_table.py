"""Writes the table of architectures in docs/serving.md: python tools/serving_table.py [--check]."""

from __future__ import annotations

import sys
from pathlib import Path

from score_video.serving.architectures import ARCHITECTURES, Architecture

DOCS = Path(__file__).resolve().parents[1] / "docs" / "serving.md"
BEGIN, END = "<!-- architectures: tools/serving_table.py -->\n", "<!-- architectures: end -->"
HEAD = "| models | architecture | |\n|---|---|---|"


def outcome(known: Architecture) -> str:
    if known.kind == "refused":
        return f"refused: {known.reason}"
    return "run on the real engine" if known.ran else f"wired, not run: {known.reason}"


def with_table(text: str) -> str:
    """The document with its table as the list has it."""
    rows = [f"| {known.models} | `{name}` | {outcome(known)} |" for name, known in ARCHITECTURES.items()]
    before, rest = text.split(BEGIN)
    table = "\n".join([HEAD, *rows])
    return f"{before}{BEGIN}{table}\n{END}{rest.split(END, 1)[1]}"


def main() -> int:
    text = DOCS.read_text(encoding="utf-8")
    if "--check" in sys.argv:
        if with_table(text) == text:
            return 0
        print(f"{DOCS} is not what tools/serving_table.py writes", file=sys.stderr)
        return 1
    DOCS.write_text(with_table(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
