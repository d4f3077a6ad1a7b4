"""Tables and numbers as documents have them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence


def table(head: Sequence[str], lines: Iterable[Sequence[str]], numbers: Collection[int] | None = None) -> list[str]:
    """Lines of a table; ``numbers`` are the columns that are set to the right, None: all."""
    numbers = range(len(head)) if numbers is None else numbers
    rule = ["---:" if column in numbers else "---" for column in range(len(head))]
    return [f"| {' | '.join(line)} |" for line in (head, rule, *lines)]


def number(value: float) -> str:
    """Three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
