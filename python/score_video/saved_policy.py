"""Moved to :mod:`score_video.policy.weights`; this name goes with 0.3."""

import warnings

from score_video.policy.weights import load_policy, load_policy_weights, pretrained_policy

__all__ = ["load_policy", "load_policy_weights", "pretrained_policy"]
warnings.warn("score_video.saved_policy is now score_video.policy.weights", DeprecationWarning, stacklevel=2)
