"""As many cases of a test as it takes for each value of each of its parameters to occur; all of them take minutes."""

from __future__ import annotations

from collections.abc import Callable

import pytest


def keep_some(items: list[pytest.Item], concerned: Callable[[pytest.Item], bool]) -> None:
    """Takes the others away from ``items``, in place; tests that are not ``concerned`` stay whole."""
    seen: set[tuple[str, str, str]] = set()
    kept = []
    for item in items:
        if concerned(item):
            values = getattr(item, "callspec", None)
            ids = values.id.split("-") if values else [""]
            new = {(item.name.split("[")[0], str(place), value) for place, value in enumerate(ids)}
            if new <= seen:
                continue
            seen |= new
        kept.append(item)
    items[:] = kept
