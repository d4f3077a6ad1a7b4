"""How many tokens a video keeps: the one place for this arithmetic, on the host.

``retention`` is the fraction kept, in (0, 1]; ``pruning_rate`` is the engines' word for 1 - retention, in [0, 1).
Float semantics are Python's, so that counts agree with the engines' own to the token: with a pruning rate of 0.9, 1000
tokens give 99, because 1 - 0.9 is 0.09999999999999998.
"""

from __future__ import annotations

from score_ext import _native


def keep_count(frames: int, tokens_per_frame: int, retention: float) -> int:
    """``max(1, int(frames * tokens_per_frame * retention))``, and 0 for an empty video.

    Raises ValueError for a retention outside (0, 1], negative sizes, or more than 2^31 - 1 tokens.
    """
    return _native.keep_count(frames, tokens_per_frame, retention)


def evs_count(frames: int, tokens_per_frame: int, pruning_rate: float) -> int:
    """vLLM's count for EVS (arXiv 2510.14624): ``max(N, int(T * N * (1 - q)))``, the first frame always whole."""
    return _native.evs_count(frames, tokens_per_frame, pruning_rate)


def vidcom2_count(frames: int, tokens_per_frame: int, pruning_rate: float) -> int:
    """vLLM's count for VidCom2 (arXiv 2505.14454): ``max(T, min(int(T * N * (1 - q)), T * N))``, one token a frame."""
    return _native.vidcom2_count(frames, tokens_per_frame, pruning_rate)
