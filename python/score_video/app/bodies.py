"""What requests hold: their JSON, and the values in it, looked at before anything is done with them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from starlette.requests import Request

from score_video.app.pages import TooLargeError
from score_video.checks import is_fraction, is_integer
from score_video.errors import ScoreError

MAX_JSON = 65_536
"""Bytes of a request."""


async def json_of(request: Request) -> dict[str, Any]:
    """A request's body. Raises TooLargeError, ScoreError: it is too long, or no JSON object."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_JSON:
            raise TooLargeError("the request is too long")
    with contextlib.suppress(ValueError, RecursionError):
        if isinstance(value := json.loads(body), dict):
            return value
    raise ScoreError("the request must be a JSON object")


def text(body: dict[str, Any], name: str) -> str:
    """Text. Raises ScoreError for anything else, as the others below."""
    if not isinstance(value := body.get(name), str):
        raise ScoreError(f"{name} must be text, got {value!r:.40}")
    return value


def integer(body: dict[str, Any], name: str) -> int:
    """A whole number."""
    value = body.get(name)
    if not is_integer(value):
        raise ScoreError(f"{name} must be a whole number, got {value!r:.40}")
    return value


def fraction(body: dict[str, Any], most: float) -> float:
    """The retention, above 0 and at most so much."""
    value = body.get("retention")
    if not is_fraction(value) or value > most + 1e-9:  # percent over 100 may be a bit off
        raise ScoreError(f"retention must be above 0 and at most {most:g}, got {value!r:.40}")
    return min(float(value), most)


def names(body: dict[str, Any]) -> list[str]:
    """The compressors, one to three names."""
    value = body.get("compressors")
    if not isinstance(value, list) or not 1 <= len(value) <= 3 or not all(isinstance(name, str) for name in value):
        raise ScoreError(f"compressors must be one to three names, got {value!r:.80}")
    return value
