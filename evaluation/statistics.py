"""What only the study needs of statistics; the rest is :mod:`score_video.statistics`."""

from __future__ import annotations

import base64

import numpy as np
import numpy.typing as npt

from score_video.statistics import Marks


def pack(marks: Marks) -> str:
    """Booleans as base64, row by row."""
    return base64.b64encode(np.packbits(marks).tobytes()).decode()


def unpack(text: str, shape: tuple[int, ...]) -> Marks:
    """The inverse of :func:`pack`."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=int(np.prod(shape)))
    return bits.reshape(shape).astype(bool)


def share_out(weights: npt.ArrayLike, total: int, longest: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """``total`` tokens shared out in proportion to weights, each video at least 1 and at most all of its own.

    Exact, in whole tokens, by Sainte-Laguë's method: each goes to the video with the largest weight / (tokens + 1/2).

    Args:
        weights: [B], above 0.
        total: how many tokens, from B to the sum of ``longest``.
        longest: integers [B].
    """
    w, most = np.asarray(weights, float), np.asarray(longest, np.int64)
    if not len(w) <= total <= most.sum():
        raise ValueError(f"total must lie between {len(w)} and {most.sum()}, got {total}")
    if not (w > 0).all():
        raise ValueError(f"weights must be above 0, got {w.min()}")
    tokens = np.arange(1, max(2, most.max()))  # that a video has before it gets another one
    claims = np.where(tokens < most[:, None], w[:, None] / (tokens + 0.5), -np.inf)
    winners = np.argsort(-claims, axis=None, kind="stable")[: total - len(w)] // len(tokens)
    return np.asarray(1 + np.bincount(winners, minlength=len(w)), np.int64)
