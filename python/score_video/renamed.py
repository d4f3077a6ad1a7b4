"""Names that have changed: the old ones are accepted for one release, with a warning, and then this module goes."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from score_video.errors import ScoreError

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")


def with_new_names(given: Mapping[str, V], renamed: Mapping[str, str], stacklevel: int = 2) -> dict[str, V]:
    """Values by name, with the names of today, in the order they came in.

    Args:
        given: values by name, old or new.
        renamed: old name -> new name.
        stacklevel: whose line the warning names, as in :func:`warnings.warn`; 2: the caller's.

    Raises:
        ScoreError: something is given by its old name and its new one.
    """
    for old, new in renamed.items():
        if old in given and new in given:
            raise ScoreError(f"{old} is the former name of {new}: give {new} alone")
        if old in given:
            warnings.warn(f"{old} is now called {new}", DeprecationWarning, stacklevel=stacklevel)
    return {renamed.get(name, name): value for name, value in given.items()}


def renamed_arguments(**renamed: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates a function whose keyword arguments have new names: ``renamed_arguments(old="new")``."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def renaming(*args: P.args, **kwargs: P.kwargs) -> T:
            if renamed.keys().isdisjoint(kwargs):
                return function(*args, **kwargs)
            keywords: dict[str, Any] = with_new_names(kwargs, renamed, stacklevel=3)
            return function(*args, **keywords)

        return renaming

    return decorate


def renamed_fields(**renamed: str) -> Callable[[type[T]], type[T]]:
    """Decorates a dataclass whose fields have new names: its former ones are taken as keyword arguments."""

    def decorate(kind: type[T]) -> type[T]:
        kind.__init__ = renamed_arguments(**renamed)(kind.__init__)  # type: ignore[method-assign]
        return kind

    return decorate
