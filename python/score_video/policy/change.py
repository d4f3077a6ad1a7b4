"""How much each token changes over time: the size that LayerNorm takes away from the policy's dX."""

from __future__ import annotations

import torch
from torch import Tensor

import score_ext
from score_video.packed import PackedVideos, check_sizes

CHANGE_WIDTH = 2
"""Columns of :func:`change_features`."""


@torch.no_grad()
def change_features(videos: PackedVideos) -> Tensor:
    """How far a token's direction u = x / |x| is from that at the same place in the frame before, and in the one after.

    |u_t - u_(t-1)| = sqrt(2 s) with s the cosine distance of :func:`score_ext.surprise`, between 0 and 2 whatever the
    tower; the root, because most of what tells movement from rest lies near 0. The second column is the same of the
    frame after: what is there for one frame only is far from both. 0 where there is no such frame; a zero token is at a
    right angle to all others. Ours: SCORE says that its state is "surprise-augmented", not how.

    Args:
        videos: L tokens.

    Returns:
        float32 [L, ``CHANGE_WIDTH``]. Not differentiable.

    Raises:
        TypeError, ValueError: as :func:`score_video.packed.check_sizes`.
    """
    check_sizes(videos)
    surprise = score_ext.surprise(videos.tokens, videos.cu_seqlens, videos.tokens_per_frame, first=0.0)
    before = (2 * surprise.clamp_min(0)).sqrt()
    video = videos.video_of_token
    following = torch.arange(len(before), device=before.device) + videos.tokens_per_frame[video]
    is_last = following >= videos.cu_seqlens[1:][video]
    after = torch.where(is_last, 0.0, before[torch.where(is_last, 0, following)])
    return torch.stack([before, after], dim=1)
