"""``python compare.py HERE THERE``: whether two runs of driver.cpp printed the same bits, or the same numbers."""

from __future__ import annotations

import math
import sys
from pathlib import Path

TOLERANCE = 2e-6  # of a value, or of 1: sums in float32 whose order follows the width of the vectors


def distance(here: str, there: str) -> float:
    """0 for the same number, not finite ones among them; else relative to the larger of it and 1."""
    a, b = float(here), float(there)
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    apart = abs(a - b) / max(1.0, abs(a))
    return apart if math.isfinite(apart) else math.inf


def differences(here: str, there: str) -> list[str]:
    """What is wrong, a line for each array."""
    rows = [[line.split() for line in text.splitlines()] for text in (here, there)]
    if [(row[:2], len(row)) for row in rows[0]] != [(row[:2], len(row)) for row in rows[1]] or not rows[0]:
        return ["the two did not print the same arrays"]
    wrong = []
    for (name, kind, *ours), (_, _, *theirs) in zip(*rows, strict=True):
        if kind == "exact":
            count = sum(a != b for a, b in zip(ours, theirs, strict=True))
        else:
            count = sum(distance(a, b) > TOLERANCE for a, b in zip(ours, theirs, strict=True))
        if count:
            wrong.append(f"{name} ({kind}): {count} of {len(ours)} values differ")
    return wrong


def main() -> None:
    here, there = (Path(name).read_text() for name in sys.argv[1:3])
    if wrong := differences(here, there):
        sys.exit("\n".join(wrong))
    exact = sum(line.split()[1] == "exact" for line in here.splitlines())
    print(f"{len(here.splitlines())} arrays: {exact} equal to the bit, the others to {TOLERANCE:g}")


if __name__ == "__main__":
    main()
