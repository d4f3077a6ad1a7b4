"""Moved to :mod:`score_video.policy.change`; this name goes with 0.3."""

from score_video.policy.change import CHANGE_WIDTH, change_features
from score_video.renamed import warn

__all__ = ["CHANGE_WIDTH", "change_features"]
warn("score_video.change is now score_video.policy.change", up=1)
