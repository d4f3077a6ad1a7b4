"""The frames of a video that a command's options stand for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from score_video.errors import ScoreError
from score_video.video import SampledVideo, read_frames
from score_video.video.sampling import Fit, ReportProgress

DEFAULT_FRAMES = 32


@dataclass(frozen=True)
class Frames:
    """Which frames of a video are read.

    Attributes:
        number: so many, evenly in time; with neither this nor ``fps`` it is 32.
        fps: so many a second.
        allow_truncated: whether what there is of a file that ends early will do.

    Raises:
        ScoreError: both are given.
    """

    number: int | None = None
    fps: float | None = None
    allow_truncated: bool = False

    def __post_init__(self) -> None:
        if self.number is not None and self.fps is not None:
            raise ScoreError("give --frames or --fps, not both")
        if self.number is None and self.fps is None:
            object.__setattr__(self, "number", DEFAULT_FRAMES)

    def read(self, video: Path, fit: Fit, progress: ReportProgress) -> SampledVideo:
        """These frames of a file, by :func:`score_video.video.read_frames`; ``fit`` and what it raises as there."""
        truncated = self.allow_truncated
        return read_frames(
            video, fit, num_frames=self.number, fps=self.fps, allow_truncated=truncated, progress=progress
        )
