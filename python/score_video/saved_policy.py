"""Moved to :mod:`score_video.policy`; this name goes with 0.3."""

from score_video.policy import SurprisePolicy, pretrained_policy
from score_video.renamed import warn

__all__ = ["load_policy", "pretrained_policy"]
load_policy = SurprisePolicy.from_pretrained
warn("score_video.saved_policy is now score_video.policy", up=1)
