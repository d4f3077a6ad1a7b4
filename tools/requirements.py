"""Prints what an extra of pyproject.toml requires, one a line, to be installed without the package itself."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def main(extra: str) -> None:
    """Prints the requirements of one extra."""
    extras = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    if extra not in extras:
        sys.exit(f"error: extra must be one of {', '.join(extras)}, got {extra}")
    print(*extras[extra], sep="\n")


if __name__ == "__main__":
    main(sys.argv[1])
