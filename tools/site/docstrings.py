"""Griffe extension: the cross-references in docstrings, ``:class:`name```, as links of the API reference."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).parent))
import pages

_ROLE = re.compile(r":(?:mod|class|func|meth|attr|data|exc):`~?\.?([\w.]+)`")


class CrossReferences(griffe.Extension):
    """A name that the reference has becomes a link to it, any other stands as code."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for every object that griffe has read."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda role: _link(role[1], obj), obj.docstring.value)


def _link(name: str, obj: griffe.Object) -> str:
    try:
        path = obj.resolve(name)  # a name as the docstring's own module knows it
    except griffe.NameResolutionError:
        path = name
    return pages.reference(path, name)
