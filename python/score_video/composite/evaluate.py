"""What the generator of the semi-real world's videos knows: what it would keep, and what was kept of what flashes.

``evaluate`` is :func:`score_video.rl.accuracy.evaluate`, on :meth:`CompositeEnvironment.batches`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from score_video.composite.dropping import LIVE_PIXELS, SHOWN_PIXELS
from score_video.composite.world import FIRST_FLASH, FIRST_LANDMARK, FIRST_MARK, TOKENS
from score_video.rl.accuracy import Choose, budgets, share_equally
from score_video.rl.accuracy import choose_by as choose_by
from score_video.rl.accuracy import evaluate as evaluate
from score_video.rl.environment import EncodedBatch


def flashes_kept(batches: Iterable[EncodedBatch], choose: Choose, retention: float) -> float:
    """Share of the videos with a flash of which a token that shows it is kept."""
    seen, flashes = 0, 0
    for batch in batches:
        index = choose(batch, budgets(batch, retention))
        showing = _flashing(batch)
        kept = torch.zeros(len(showing), dtype=torch.bool).index_fill_(0, index, True)
        flashes += int(showing.view(-1, TOKENS).any(1).sum())
        seen += int((showing & kept).view(-1, TOKENS).any(1).sum())
    return seen / max(1, flashes)


def oracle(batch: EncodedBatch, keep: Tensor) -> Tensor:
    """Picks by what the generator knows: every thing that is asked about gets an equal share, spread over its tokens.

    An upper mark to look at, not a bound: it knows what was put where, not how the reader combines it.
    """
    features, videos = batch.payload.features, batch.videos
    there = (features.shown.flatten(0, 1) >= SHOWN_PIXELS).float()
    alive = (features.live.flatten() >= LIVE_PIXELS).float()[:, None]
    landmarks = there[:, FIRST_LANDMARK:FIRST_MARK]
    moving = torch.cat([there[:, :FIRST_LANDMARK], there[:, FIRST_MARK:]], 1) * alive
    scene = (features.shown.flatten(0, 1).sum(1) == 0).float()[:, None]
    things = torch.cat([moving, landmarks, scene], 1)
    return share_equally(things, videos, keep)


def _flashing(batch: EncodedBatch) -> Tensor:
    """bool [L]: the token shows what is seen in one frame alone."""
    features = batch.payload.features
    flashes = (features.shown[..., FIRST_FLASH:FIRST_LANDMARK] >= SHOWN_PIXELS).any(2)
    showing: Tensor = (flashes & (features.live >= LIVE_PIXELS)).flatten()
    return showing
