"""The policy: its state, its network, and the weights that come with the package."""

from score_video.policy.network import SurprisePolicy, SurprisePolicyConfig, expected_count
from score_video.policy.weights import load_policy, pretrained_policy

__all__ = ["SurprisePolicy", "SurprisePolicyConfig", "expected_count", "load_policy", "pretrained_policy"]
