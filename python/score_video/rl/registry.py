"""Looking up a named strategy of one of the registries: samplings, rewards, compressions, advantages."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TypeVar

from score_video.errors import ScoreError

T = TypeVar("T")


def find(registry: Mapping[str, T], name: str | T) -> T:
    """The strategy of that name, or the one at "package.module:attribute"; anything that is not a string as it is.

    Raises:
        ValueError: there is no such name, or the module (which may lie in the current folder) or its attribute cannot
            be imported; lists the names there are.
    """
    if not isinstance(name, str):
        return name
    if name in registry:
        return registry[name]
    choices = f"the registered names are {', '.join(registry)}; one of your own is written package.module:attribute"
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ScoreError(f"name {name!r} is not registered; {choices}")
    search_current_folder()
    try:
        found: T = getattr(import_module(module), attribute)
    except Exception as error:  # whatever a module of the user's own does
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ScoreError(f"name {name!r} cannot be imported ({said}); {choices}") from error
    return found


def search_current_folder() -> None:
    """Has Python look for modules in the current folder too, after all else: a command's own path does not have it."""
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
