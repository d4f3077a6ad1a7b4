"""The policy that comes with the package: its weights, and what loads them."""

from __future__ import annotations

from pathlib import Path

from score_video.policy.network import SurprisePolicy

PRETRAINED = Path(__file__).parent
"""Its folder."""


def pretrained_policy() -> SurprisePolicy:
    """The policy that comes with the package, on the CPU and frozen: for visual tokens of any tower and width.

    Its state is "relative". It learned by RL on miniature readers with several vision towers, and was tested on towers
    that it never saw (docs/results.md); no model of useful size was among them.
    ``python -m score_video.miniature.train_policy READERS`` makes it.
    """
    return SurprisePolicy.from_pretrained(PRETRAINED).requires_grad_(False)
