"""Moved to :mod:`score_video.policy`; this name goes with 0.3."""

import warnings

from score_video.policy import SurprisePolicy, pretrained_policy

__all__ = ["load_policy", "pretrained_policy"]
load_policy = SurprisePolicy.from_pretrained
warnings.warn("score_video.saved_policy is now score_video.policy", DeprecationWarning, stacklevel=2)
