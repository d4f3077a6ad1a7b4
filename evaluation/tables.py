"""Numbers and tables as the document writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation.found import Cell


def percent(share: float, digits: int = 1) -> str:
    """0.1234 -> 12.3; a dash where there is no number."""
    return "-" if math.isnan(share) else f"{100 * share:.{digits}f}"


def points(difference: float) -> str:
    """0.0123 -> +1.2, percentage points."""
    return f"{100 * difference:+.1f}"


def signed(difference: tuple[float, float]) -> str:
    """A difference and its standard error: +1.2 ± 0.3."""
    return f"{points(difference[0])} ± {percent(difference[1])}"


def spread(values: Sequence[float]) -> str:
    """(least to most) of several seeds, in percent; nothing for one."""
    return f" ({percent(min(values))} to {percent(max(values))})" if len(values) > 1 else ""


def accuracy(cell: Cell) -> str:
    """97.8 (97.6 to 98.1) of several seeds; 97.8 ± 0.3 of one."""
    if len(cell.by_seed) > 1:
        return percent(cell.accuracy) + spread(cell.by_seed)
    return f"{percent(cell.accuracy)} ± {percent(cell.answers.standard_error)}"


def mean_and_spread(values: Sequence[float], digits: int = 2) -> str:
    """Of plain numbers: 0.81 (0.78 to 0.83)."""
    mean = f"{sum(values) / len(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown, the first column to the left and the rest to the right; ends with an empty line."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(line)} |" for line in (head, rule, *rows)] + [""]


def retention_heads(retentions: Sequence[float]) -> list[str]:
    """2%, 5%, ..."""
    return [f"{percent(retention, 0)}%" for retention in retentions]
