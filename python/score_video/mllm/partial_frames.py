"""Dense vision towers, which see one whole frame at a time: run on some of a video's frames, exactly as on all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from score_video import thumbnails
from score_video.before_tower import Gate, Seen, fill_sources, filled
from score_video.packed import Selection


@dataclass(frozen=True)
class SeenFrames:
    """Features of whole frames.

    Attributes:
        rows: [T * N, D]; tokens of frames that were not seen are those of the latest seen frame before, or the next.
        seen: which tokens the tower has seen.
    """

    rows: Tensor
    seen: Seen


def frames_of(gate: Gate, pixels: Tensor, counts: list[int], encode: Callable[[Tensor], Tensor]) -> SeenFrames:
    """Chooses frames by their thumbnails and encodes them.

    Args:
        gate: chooses; a frame is one token to it.
        pixels: [T, 3, H, W], the frames of all videos.
        counts: the frames of each video.
        encode: int64 [K], rows of ``pixels`` -> [K * N, D], their features, N tokens of each.
    """
    pictures = thumbnails.of_frames(pixels, [(count, 1, 1) for count in counts])
    kept = gate.choose(pictures).kept
    rows = encode(kept.index)
    per_frame = len(rows) // len(kept.index)
    of_frame = torch.arange(per_frame, device=rows.device)
    sources = fill_sources(pictures, kept.index)
    index = (kept.index[:, None] * per_frame + of_frame).flatten()
    return SeenFrames(
        filled(rows, (sources[:, None] * per_frame + of_frame).flatten()),
        Seen(Selection(index, kept.keep * per_frame), index),
    )
