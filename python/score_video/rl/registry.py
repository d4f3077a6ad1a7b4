"""Looking up a named strategy of one of the registries: samplings, rewards, compressions, advantages."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TypeVar

from score_video.errors import ScoreError

T = TypeVar("T")


def find(registry: Mapping[str, T], name: str | T) -> T:
    """The strategy of that name, or the one at "package.module:attribute"; anything that is not a string as it is.

    Raises:
        ValueError: there is no such name, or the module or its attribute cannot be imported; lists the names there are.
    """
    if not isinstance(name, str):
        return name
    if name in registry:
        return registry[name]
    choices = f"the registered names are {', '.join(registry)}; one of your own is written package.module:attribute"
    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise ScoreError(f"name {name!r} is not registered; {choices}")
    try:
        found: T = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ScoreError(f"name {name!r} cannot be imported ({error}); {choices}") from error
    return found
