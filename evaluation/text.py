"""Numbers and tables as the document writes them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation.needed import Needed
from evaluation.results import Cell, Cells, Kind
from evaluation.statistics import Difference


def percent(share: float, digits: int = 1) -> str:
    """0.1234 -> 12.3; a dash where there is no number."""
    return "-" if math.isnan(share) else f"{100 * share:.{digits}f}"


def points(difference: float) -> str:
    """0.0123 -> +1.2, percentage points."""
    return f"{100 * difference:+.1f}"


def signed(difference: Difference) -> str:
    """A difference and its standard error: +1.2 ± 0.3."""
    return f"{points(difference.value)} ± {percent(difference.error)}"


def accuracy(cell: Cell) -> str:
    """97.8 (97.6 to 98.1) of several seeds; 97.8 ± 0.3 of one."""
    if len(cell.by_seed) > 1:
        return f"{percent(cell.accuracy)} ({percent(min(cell.by_seed))} to {percent(max(cell.by_seed))})"
    return f"{percent(cell.accuracy)} ± {percent(cell.answers.standard_error)}"


def mean_and_spread(values: Sequence[float], digits: int = 2, scale: float = 1.0) -> str:
    """Of plain numbers: 0.81 (0.78 to 0.83)."""
    mean, low, high = (f"{scale * of:.{digits}f}" for of in (sum(values) / len(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({low} to {high})"


def kind_name(kind: Kind) -> str:
    """A strategy as tables call it."""
    return f"{kind[0]} (scaled)" if kind[1] else kind[0]


def at(retention: float) -> str:
    """0.05 -> 5%."""
    return f"{percent(retention, 0)}%"


def needed(found: Needed) -> str:
    """A retention that is needed, with its interval: 3.1% (2.9 to 3.4); at most, where less was not tested."""
    if found.value <= found.least:
        return f"{percent(found.least)}% or less"
    return f"{percent(found.value)}% ({percent(found.low)} to {percent(found.high)})"


def by_retention(differences: dict[float, Difference]) -> str:
    """+1.2 ± 0.3 at 5%; ..."""
    return "; ".join(f"{signed(difference)} at {at(retention)}" for retention, difference in differences.items())


def settings(values: dict[str, object]) -> str:
    """`name` value, ..."""
    return ", ".join(f"`{name}` {value}" for name, value in values.items())


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, the first column to the left and the rest to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *rows))


def compared(series: dict[str, Cells], base: str, head: str = "") -> str:
    """A row of accuracies by retention for each of several, with its differences to the one named ``base``."""
    rows = []
    for name, cells in series.items():
        of_base = {} if name == base else series[base]
        differences = [signed(cells[r].answers.minus(of_base[r].answers)) if of_base else "" for r in cells]
        rows.append([name, *map(accuracy, cells.values()), *differences])
    heads = [at(retention) for retention in series[base]]
    return table([head, *heads, *(f"difference at {head}" for head in heads)], rows)
