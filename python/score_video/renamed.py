"""What is now called or given otherwise: the old way is taken for one release, with a warning, and then this goes."""

from __future__ import annotations

import functools
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from score_video.errors import ScoreError

P = ParamSpec("P")
T = TypeVar("T")
V = TypeVar("V")


class FormerNameWarning(DeprecationWarning):
    """A name that goes with the next release. The command line shows it, once, as one line."""


def warn(message: str, up: int = 0) -> None:
    """Warns of a former name.

    Args:
        message: what it is called now.
        up: whose line is named: 0 is the caller outside of this module, 1 that one's caller, and so on.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, FormerNameWarning, stacklevel=level + up)


def with_new_names(given: Mapping[str, V], renamed: Mapping[str, str], up: int = 0) -> dict[str, V]:
    """Values by name, with the names of today, in the order they came in.

    Args:
        given: values by name, old or new.
        renamed: old name -> new name.
        up: as for :func:`warn`.

    Raises:
        ScoreError: something is given by its old name and its new one.
    """
    for old, new in renamed.items():
        if old in given and new in given:
            raise ScoreError(f"{old} is the former name of {new}: give {new} alone")
        if old in given:
            warn(f"{old} is now called {new}", up)
    return {renamed.get(name, name): value for name, value in given.items()}


def renamed_arguments(**renamed: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates a function whose keyword arguments have new names: ``renamed_arguments(old="new")``."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def renaming(*args: P.args, **kwargs: P.kwargs) -> T:
            if renamed.keys().isdisjoint(kwargs):
                return function(*args, **kwargs)
            keywords: dict[str, Any] = with_new_names(kwargs, renamed)
            return function(*args, **keywords)

        return renaming

    return decorate


def renamed_fields(**renamed: str) -> Callable[[type[T]], type[T]]:
    """Decorates a dataclass whose fields have new names: its former ones are taken as keyword arguments."""

    def decorate(kind: type[T]) -> type[T]:
        kind.__init__ = renamed_arguments(**renamed)(kind.__init__)  # type: ignore[method-assign]
        return kind

    return decorate


def moved_argument(
    name: str, instead: str, put: Callable[[Any, Any], Any]
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorates a function whose keyword argument ``name`` now belongs to one of its other arguments.

    Args:
        name: the former argument.
        instead: what to write today, for the warning.
        put: (another argument's value, the former's) -> what is passed in its place; called with all others.
    """

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(function)
        def moving(*args: P.args, **kwargs: P.kwargs) -> T:
            if name not in kwargs:
                return function(*args, **kwargs)
            warn(f"{name} is now given as {instead}")
            value = kwargs.pop(name)
            positional: Any = [put(other, value) for other in args]
            keywords: Any = {key: put(other, value) for key, other in kwargs.items()}
            return function(*positional, **keywords)

        return moving

    return decorate
