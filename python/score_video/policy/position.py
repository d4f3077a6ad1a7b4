"""Where each token of a packed batch lies in its video, and the position part of the policy's state."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from score_video.packed import PackedVideos, check_sizes

_FREQUENCIES = 3  # pi, 2 pi, 4 pi: half a wave to two waves over the video

POSITION_WIDTH = 3 * (1 + 2 * _FREQUENCIES)
"""Columns of :func:`position_features`."""


@dataclass(frozen=True)
class Places:
    """Each token's place, int64 [L] each.

    Attributes:
        video: number of the token's video in the batch.
        frame, row, column: its place in that video, from 0.
        frames, rows, columns: that video's size.
    """

    video: Tensor
    frame: Tensor
    row: Tensor
    column: Tensor
    frames: Tensor
    rows: Tensor
    columns: Tensor


def token_places(videos: PackedVideos) -> Places:
    """The place of each token, without a loop over videos and without waiting for the device.

    Raises:
        TypeError, ValueError: ``cu_seqlens``, ``tokens_per_frame`` and ``columns`` do not describe ``tokens``. Values
            that lie on a GPU are not looked at.
    """
    check_sizes(videos)
    video = videos.video_of_token
    per_frame = videos.tokens_per_frame.long()[video]
    columns = videos.columns.long()[video]
    offset = torch.arange(len(video), device=video.device) - videos.cu_seqlens.long()[video]
    in_frame = offset % per_frame
    return Places(
        video=video,
        frame=offset // per_frame,
        row=in_frame // columns,
        column=in_frame % columns,
        frames=videos.lengths.long()[video] // per_frame,
        rows=per_frame // columns,
        columns=columns,
    )


def position_features(videos: PackedVideos) -> Tensor:
    """t, y, x of each token and waves over them.

    t runs from 0 in the first frame to 1 in the last, y from the top row to the bottom one, x from left to right; each
    is 0 where there is only one. Then sin(2^j pi u) and cos(2^j pi u) for u = t, y, x and j = 0, 1, 2. SCORE's position
    terms, if it has any, are not published; our reading.

    Args:
        videos: L tokens.

    Returns:
        float32 [L, P], P = ``POSITION_WIDTH``: t, y, x; the sines, t with its three frequencies first; the cosines.

    Raises:
        TypeError, ValueError: as :func:`token_places`.
    """
    places = token_places(videos)
    place = torch.stack([places.frame, places.row, places.column], dim=1)  # [L, 3]
    size = torch.stack([places.frames, places.rows, places.columns], dim=1)
    unit = place.float() / (size - 1).clamp_min(1)
    doubling = torch.arange(_FREQUENCIES, dtype=torch.float32, device=unit.device).exp2()
    angle = (unit[:, :, None] * (torch.pi * doubling)).flatten(1)
    return torch.cat([unit, angle.sin(), angle.cos()], dim=1)
