"""Behind a gate: which of the tokens around a token the vision tower has seen, and which are filled in."""

from __future__ import annotations

import torch
from torch import Tensor

from score_video.before_tower import Seen
from score_video.packed import PackedVideos
from score_video.policy.position import Places, token_places

SEEN_WIDTH = 8
"""Columns of :func:`seen_features`."""


@torch.no_grad()
def seen_features(videos: PackedVideos, seen: Seen | None) -> Tensor:
    """How much of each token's surroundings the vision tower has seen, as far as the state looks at them. Ours.

    For n the number of frames since the place of the token was seen last before it, 1 / n, and 0 where it never was;
    the same for the next time; whether it was seen 2 and 4 frames back; and whether those above, below, to the left and
    to the right were seen, in the frame itself. 0 beyond the edges of a frame and of the video.

    Args:
        videos: L tokens.
        seen: what was; None: everything.

    Returns:
        float32 [L, ``SEEN_WIDTH``]. Does not wait for the device. Not differentiable.

    Raises:
        TypeError, ValueError: as :func:`score_video.policy.position.token_places`.
    """
    places = token_places(videos)
    length, device = len(videos.tokens), videos.tokens.device
    there = torch.ones(length, dtype=torch.bool, device=device)
    if seen is not None:
        there = torch.zeros_like(there).index_fill_(0, seen.kept.index, True)
    row = torch.arange(length, device=device)
    per_frame = places.rows * places.columns

    def at(step: Tensor | int, inside: Tensor) -> Tensor:
        """Whether the token so many rows further was seen; False where it is not ``inside``."""
        return there[torch.where(inside, row + step, row)] & inside

    columns = [
        *_closeness(there, places, videos.cu_seqlens.long()[:-1][places.video]),
        *(at(-back * per_frame, places.frame >= back) for back in (2, 4)),
        at(-places.columns, places.row > 0),
        at(places.columns, places.row + 1 < places.rows),
        at(-1, places.column > 0),
        at(1, places.column + 1 < places.columns),
    ]
    return torch.stack([column.float() for column in columns], dim=1)


def _closeness(there: Tensor, places: Places, start: Tensor) -> tuple[Tensor, Tensor]:
    """1 / frames to the latest time before that a token's place was seen, and to the next one after; 0: none.

    Args:
        there: bool [L], what was seen.
        places: where the tokens lie.
        start: int64 [L], where each token's video begins.
    """
    length = len(there)
    row = torch.arange(length, device=there.device)
    # with a place's frames one after the other, the latest one seen is a running maximum over all videos at once
    place = places.row * places.columns + places.column
    first = start + place * places.frames  # of the token's place, in that order
    at = first + places.frame
    ordered = torch.empty_like(there).scatter_(0, at, there)
    before = torch.where(ordered, row, -1).cummax(0).values
    before = torch.cat([before.new_full((1,), -1), before])[:length]  # strictly before
    after = torch.where(ordered, row, length).flip(0).cummin(0).values.flip(0)
    after = torch.cat([after, after.new_full((1,), length)])[1:][:length]
    back, ahead = at - before[at], after[at] - at
    return (
        torch.where(before[at] >= first, 1 / back, 0.0),
        torch.where(after[at] < first + places.frames, 1 / ahead, 0.0),
    )
