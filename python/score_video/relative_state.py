"""Moved to :mod:`score_video.policy.relative`; this name goes with 0.3."""

import warnings

from score_video.policy.relative import APPEARANCE_WIDTH, TEMPORAL_WIDTH, relative_state

__all__ = ["APPEARANCE_WIDTH", "TEMPORAL_WIDTH", "relative_state"]
warnings.warn("score_video.relative_state is now score_video.policy.relative", DeprecationWarning, stacklevel=2)
