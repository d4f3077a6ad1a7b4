"""The policy: its state, its network, and the weights that come with the package."""

from score_video.policy.config import SurprisePolicyConfig
from score_video.policy.network import SurprisePolicy, expected_count
from score_video.policy.pretrained import pretrained_policy

__all__ = ["SurprisePolicy", "SurprisePolicyConfig", "expected_count", "pretrained_policy"]
