"""What the generator of the semi-real world's videos knows: what it would keep, and which things are kept or missed.

``evaluate`` is :func:`score_video.rl.accuracy.evaluate`, on :meth:`CompositeEnvironment.batches`.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from score_video.composite.dropping import LIVE_PIXELS, SHOWN_PIXELS
from score_video.composite.features import Features
from score_video.composite.world import FIRST_FLASH, FIRST_LANDMARK, FIRST_MARK, TOKENS
from score_video.rl.accuracy import Choose, budgets, share_equally
from score_video.rl.accuracy import choose_by as choose_by
from score_video.rl.accuracy import evaluate as evaluate
from score_video.rl.environment import EncodedBatch
from score_video.statistics import Answers


def flashes_kept(batches: Iterable[EncodedBatch], choose: Choose, retention: float) -> float:
    """Share of the videos with a flash of which a token that shows it is kept."""
    found = things_kept(batches, choose, retention)
    flashes = slice(FIRST_FLASH, FIRST_LANDMARK)
    kept, there = found.right[0, :, flashes].any(1), found.asked[:, flashes].any(1)
    return int(kept.sum()) / max(1, int(there.sum()))


def things_kept(batches: Iterable[EncodedBatch], choose: Choose, retention: float) -> Answers:
    """Whether a token that shows it is kept, of each thing that moves, flashes or is always there, video by video.

    It needs no reader, and so no reader's training: towers can be compared on which nobody has trained one. Things are
    counted where they can be seen: at least ``SHOWN_PIXELS`` of them in a patch.
    """
    kept, there = [], []
    for batch in batches:
        things = _things(batch)
        there.append(_of_videos(things).any(1))
        kept.append(_kept(things, choose(batch, budgets(batch, retention))))
    return Answers(torch.cat(kept)[None].numpy(), torch.cat(there).numpy())


def things_missed(batch: EncodedBatch, index: Tensor) -> Tensor:
    """Where the things are of which nothing is kept: bool [L, symbols], the token shows one, and ``index``, int64 [K],
    has none of its video's that do. Things are those of :func:`things_kept`."""
    things = _things(batch)
    return (_of_videos(things) & ~_kept(things, index)[:, None]).flatten(0, 1)


def oracle(batch: EncodedBatch, keep: Tensor) -> Tensor:
    """Picks by what the generator knows: every thing that is asked about gets an equal share, spread over its tokens.

    An upper mark to look at, not a bound: it knows what was put where, not how the reader combines it.
    """
    scene = batch.payload.features.shown.flatten(0, 1).sum(1) == 0
    things = torch.cat([_things(batch), scene[:, None]], 1).float()
    return share_equally(things, batch.videos, keep)


def _kept(things: Tensor, index: Tensor) -> Tensor:
    """bool [B, symbols], of which things, bool [L, symbols], the tokens of an index, int64 [K], show something."""
    chosen = torch.zeros(len(things), 1, dtype=torch.bool).index_fill_(0, index, True)
    return _of_videos(things & chosen).any(1)


def _of_videos(marks: Tensor) -> Tensor:
    """[L, symbols] -> [B, TOKENS, symbols]."""
    return marks.view(-1, TOKENS, marks.shape[1])


def _things(batch: EncodedBatch) -> Tensor:
    """bool [L, symbols]: the token shows the thing; and of what is not always there: where it moves or flashes."""
    features: Features = batch.payload.features
    there = (features.shown >= SHOWN_PIXELS) & (features.live >= LIVE_PIXELS)[:, :, None] & features.alive[:, None]
    always = slice(FIRST_LANDMARK, FIRST_MARK)
    there[:, :, always] = features.shown[:, :, always] >= SHOWN_PIXELS
    return there.flatten(0, 1)
