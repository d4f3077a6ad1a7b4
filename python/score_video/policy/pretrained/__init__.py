"""The policies that come with the package: their weights, and what loads them."""

from __future__ import annotations

from pathlib import Path

from score_video.policy.network import SurprisePolicy

PRETRAINED = Path(__file__).parent
"""The folder of the one for tokens of a whole tower."""

BEHIND_GATE = PRETRAINED / "behind_gate"
"""The folder of the one for behind a choice before the tower."""


def pretrained_policy(*, behind_gate: bool = False) -> SurprisePolicy:
    """A policy that comes with the package, on the CPU and frozen: for visual tokens of any tower and width.

    Its state is "relative", of whitened tokens. It learned by RL through DINOv2 over real footage and through three of
    the miniature's vision towers, and was tested on towers that it never saw (docs/pretrained.md); no model of useful
    size was among them. ``python -m score_video.composite.train_policy FEATURES READERS`` makes it.

    Args:
        behind_gate: the one for what a choice before the vision tower leaves (docs/before_the_tower.md): trained behind
            such choices, it looks at which tokens the tower has seen.
    """
    return SurprisePolicy.from_pretrained(BEHIND_GATE if behind_gate else PRETRAINED).requires_grad_(False)
