"""Moved to :mod:`score_video.policy.change`; this name goes with 0.3."""

import warnings

from score_video.policy.change import CHANGE_WIDTH, change_features

__all__ = ["CHANGE_WIDTH", "change_features"]
warnings.warn("score_video.change is now score_video.policy.change", DeprecationWarning, stacklevel=2)
