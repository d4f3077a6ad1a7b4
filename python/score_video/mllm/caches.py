"""Caches of keys and values among a model's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

CACHES = ("cache", "past_key_values")
"""What transformers calls the argument and the output: the first since 5.24."""


def given_cache(given: Mapping[str, Any]) -> Any:
    """The cache among arguments; None: there is none."""
    return next((given[name] for name in CACHES if given.get(name) is not None), None)


def cached_length(cache: Any) -> int:
    """How many tokens a cache holds; 0 for no cache and for what is none."""
    return int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0
