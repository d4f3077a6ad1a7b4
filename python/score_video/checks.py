"""What counts as an integer, a number, a fraction. True and False, which Python takes for 1 and 0, count as none."""

from __future__ import annotations

from typing import TypeGuard

from score_video.errors import ScoreError


def is_integer(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a number, whole or not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_fraction(value: object) -> TypeGuard[float]:
    """Whether a value is a number above 0 and at most 1."""
    return is_number(value) and 0 < value <= 1


def check_integer(name: str, value: object, least: int) -> None:
    """Raises ScoreError for what is no integer of at least ``least``."""
    if not is_integer(value) or value < least:
        raise ScoreError(f"{name} must be an integer of at least {least}, got {value!r}")


def check_fraction(name: str, value: object) -> None:
    """Raises TypeError or ScoreError for what is no number above 0 and at most 1."""
    if not is_number(value):
        raise TypeError(f"{name} must be a number, got {value!r}")
    if not is_fraction(value):
        raise ScoreError(f"{name} must be above 0 and at most 1, got {value}")
