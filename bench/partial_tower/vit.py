"""A vision tower by itself: DINOv2, whose layers see one frame with its class token, run on some of its patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from bench.partial_tower.rows import WHOLE, Row, clock, how_named, similarity
from score_video.before_tower import Gate
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.progress import Progress
from score_video.video import read_frames
from score_video.video.partial_tower import check_partial, partial_tokens, thumbnails_of
from score_video.video.tower import VisionTower, load_tower


def tower_of(source: str, size: int) -> VisionTower:
    """A DINOv2 for frames of ``size`` pixels. Raises ScoreError for another model, or no whole number of patches."""
    tower = load_tower(source)
    check_partial(tower)
    if size % tower.patch:
        raise ScoreError(f"--size must be a multiple of {tower.patch}, the tower's patches, got {size}")
    return replace(tower, height=size, width=size)


@torch.no_grad()
def measure(
    tower: VisionTower,
    videos: Sequence[Path],
    method: str,
    shares: Sequence[float],
    halos: Sequence[int],
    frames: int,
    progress: Progress,
) -> list[Row]:
    """As :func:`bench.partial_tower.mllm.measure`, without questions."""
    rows = [Row(share, how) for share in shares for how in (WHOLE, *map(how_named, halos))]
    named = {(row.kept, row.how): row for row in rows}
    for number, path in enumerate(videos):
        pixels = pixels_of(tower, path, frames)
        pictures = thumbnails_of(tower, pixels)
        everything = torch.arange(len(pictures.tokens), device=pixels.device)
        partial_tokens(tower, pixels, everything)  # warms up
        whole, seconds = _timed(tower, pixels, everything)
        for share in shares:
            _add(named[share, WHOLE], 1.0, seconds, 1.0)
            for halo in halos:
                seen = Gate(Compressor(method, share), halo, method).choose(pictures)
                features, took = _timed(tower, pixels, seen.encoded)
                kept = seen.kept.index
                own = features[torch.searchsorted(seen.encoded, kept)]
                row = named[share, how_named(halo)]
                _add(row, len(seen.encoded) / len(everything), took, similarity(own, whole[kept]))
        progress("videos", number + 1, len(videos))
    return rows


def pixels_of(tower: VisionTower, path: Path, frames: int) -> Tensor:
    """Of a file's frames, [T, 3, H, W]."""
    sampled = read_frames(path, num_frames=frames, fit=lambda height, width: (tower.height, tower.width)).frames
    return tower.pixels(sampled)


def _timed(tower: VisionTower, pixels: Tensor, index: Tensor) -> tuple[Tensor, float]:
    start = clock(tower.device)
    features = partial_tokens(tower, pixels, index)
    return features, clock(tower.device) - start


def _add(row: Row, encoded: float, seconds: float, cosine: float) -> None:
    row.encoded.append(encoded)
    row.seconds.append(seconds)
    row.cosine.append(cosine)
