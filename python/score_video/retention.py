"""How many tokens of each video stay: a fraction, bounds, or counts that are given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from score_ext.budget import keep_count
from score_video.checks import check_fraction, is_integer
from score_video.errors import ScoreError
from score_video.packed import PackedVideos, check_sizes
from score_video.policy import expected_count


@dataclass(frozen=True)
class AdaptiveRetention:
    """Each video keeps as many tokens as its policy expects to, within bounds, so that quiet videos keep fewer.

    k is :func:`score_video.policy.expected_count`, rounded to the nearest integer (halves to even), raised to
    ``keep_count(T, N, floor)`` where it is below and lowered to ``keep_count(T, N, cap)`` where it is above.

    Attributes:
        floor, cap: fractions, 0 < floor <= cap <= 1.

    Raises:
        TypeError, ValueError: they are not.
    """

    floor: float
    cap: float

    def __post_init__(self) -> None:
        check_fraction("floor", self.floor)
        check_fraction("cap", self.cap)
        if self.floor > self.cap:
            raise ScoreError(f"floor must be at most cap, {self.cap}, got {self.floor}")


def counts_of(videos: PackedVideos, retention: float | AdaptiveRetention, logits: Tensor | None) -> list[int]:
    """What each video keeps; waits for the device. Raises ScoreError where an adaptive count is not to be had.

    Args:
        videos: B of them.
        retention: a fraction, or bounds of what the logits make of it.
        logits: float32 [L]; needed where the count is adaptive.
    """
    check_sizes(videos)
    sizes = torch.stack([videos.lengths, videos.tokens_per_frame], dim=1).tolist()
    frames = [(length // n if length else 0, n) for length, n in sizes]
    if not isinstance(retention, AdaptiveRetention):
        return [keep_count(t, n, retention) for t, n in frames]
    assert logits is not None
    counts = []
    for video, ((t, n), expected) in enumerate(zip(frames, expected_count(logits, videos).tolist(), strict=True)):
        if math.isnan(expected):
            raise ScoreError(f"tokens of video {video} give logits with NaN: it has no count")
        floor, cap = keep_count(t, n, retention.floor), keep_count(t, n, retention.cap)
        counts.append(min(max(round(expected), floor), cap))
    return counts


def given_counts(videos: PackedVideos, keep: Sequence[int]) -> list[int]:
    """The counts, checked as far as the host can see: against lengths where these lie on the CPU."""
    check_sizes(videos)
    counts = list(keep)
    if len(counts) != videos.num_videos:
        raise ScoreError(f"keep must be {videos.num_videos} counts, one for each video, got {len(counts)}")
    for count in counts:
        if not is_integer(count):
            raise TypeError(f"keep must hold integers, got {count!r}")
        if count < 0:
            raise ScoreError(f"keep must not be negative, got {count}")
    if videos.cu_seqlens.device.type == "cpu":
        for video, (count, length) in enumerate(zip(counts, videos.lengths.tolist(), strict=True)):
            if count > length:
                raise ScoreError(f"keep must be at most {length}, the tokens of video {video}, got {count}")
    return counts
