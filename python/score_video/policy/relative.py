"""The policy's state "relative": features of a token that mean the same for every vision tower.

Only cosines, norms beside those of the same video, and standard scores: no coordinate of the token itself, so that a
policy trained on one tower can be used on another of any width. :func:`score_ext.relative_state` has the definition.
"""

from __future__ import annotations

from torch import Tensor

import score_ext
from score_video.packed import PackedVideos, check_sizes

TEMPORAL_WIDTH = 25
"""Columns of the temporal part: 7 cosines as they are, as scores within the video, as scores within the frame; then
whether there is a frame 1, 2, 4 back and 1 ahead."""

APPEARANCE_WIDTH = 18
"""Columns of the appearance part: 5 cosines as in the temporal part; whether there is a neighbour; log |x| as a score
within the video and within the frame."""

RELATIVE_WIDTH = TEMPORAL_WIDTH + APPEARANCE_WIDTH
"""Columns of both."""


def relative_state(videos: PackedVideos) -> Tensor:
    """:func:`score_ext.relative_state` of packed videos: the temporal part, then the appearance part.

    Returns:
        float32 [L, ``RELATIVE_WIDTH``]; finite where the video's tokens are.

    Raises:
        TypeError, ValueError: as :func:`score_video.packed.check_sizes`.
    """
    check_sizes(videos)
    sizes = videos.cu_seqlens, videos.tokens_per_frame, videos.columns
    return score_ext.relative_state(videos.tokens, *sizes, videos.num_frames)
