"""Moved to :mod:`score_video.policy.relative`; this name goes with 0.3."""

from score_video.policy.relative import APPEARANCE_WIDTH, TEMPORAL_WIDTH, relative_state
from score_video.renamed import warn

__all__ = ["APPEARANCE_WIDTH", "TEMPORAL_WIDTH", "relative_state"]
warn("score_video.relative_state is now score_video.policy.relative", up=1)
