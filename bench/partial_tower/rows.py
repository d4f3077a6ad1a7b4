"""Rows of the table: a share of the tokens, how the tower saw them, and what came of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from score_video.progress import synchronize
from score_video.statistics import ratio_error

WHOLE = "whole tower"


@dataclass
class Row:
    """Of all videos.

    Attributes:
        kept: the share of the tokens that the rule keeps; 1: all.
        how: the whole tower at these places, them alone, or with a halo.
        encoded: for each video the share of the tokens that went through the tower.
        seconds: what the vision side took, by :func:`clock`.
        cosine: mean over the kept tokens, to the whole tower's features.
        asked, right: how many questions, and how many of them were answered rightly.
        log_prob: of the right answers, summed.
    """

    kept: float
    how: str
    encoded: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    cosine: list[float] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    right: list[float] = field(default_factory=list)
    log_prob: list[float] = field(default_factory=list)

    def numbers(self, whole: Row) -> dict[str, Any]:
        """As JSON has it; ``whole`` is the row of the whole tower at the same places. Errors are standard errors over
        videos, of differences paired by video; None where there is one video, or no question."""
        found: dict[str, Any] = {
            "kept": self.kept,
            "how": self.how,
            "videos": len(self.encoded),
            "encoded": statistics.mean(self.encoded),
            "milliseconds": 1000 * statistics.median(self.seconds),
            "speed_up": statistics.median(whole.seconds) / statistics.median(self.seconds),
            "cosine": statistics.mean(self.cosine),
        }
        if self.asked:
            count, right = torch.tensor(self.asked), torch.tensor(self.right)
            difference = right - torch.tensor(whole.right)
            several = len(self.asked) > 1
            found |= {
                "questions": int(count.sum()),
                "accuracy": float(right.sum() / count.sum()),
                "difference": float(difference.sum() / count.sum()),
                "difference_error": ratio_error(difference, count) if several else None,
                "log_prob": sum(self.log_prob) / int(count.sum()),
            }
        return found


def clock(device: torch.device) -> float:
    """Seconds: of the process on a CPU, which others may be using too; else on the wall, of a device that is done."""
    synchronize(device)
    return time.process_time() if device.type == "cpu" else time.perf_counter()


def how_named(halo: int) -> str:
    """Of a partial run."""
    return f"halo {halo}" if halo else "alone"


def similarity(mine: Tensor, whole: Tensor) -> float:
    """Mean cosine of rows [K, D]."""
    return float(torch.cosine_similarity(mine.float(), whole.float(), dim=1).mean())


def whole_of(rows: Sequence[Row], row: Row) -> Row:
    """The row of the whole tower at the same places."""
    return next(other for other in rows if other.kept == row.kept and other.how == WHOLE)
