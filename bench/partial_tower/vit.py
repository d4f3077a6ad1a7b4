"""A vision tower by itself: DINOv2, whose layers see one frame with its class token, run on some of its patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from bench.partial_tower.rows import WHOLE, Row, clock, how_named, similarity
from score_video.before_tower import Gate
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.mllm import thumbnails
from score_video.packed import PackedVideos
from score_video.progress import Progress
from score_video.video import read_frames
from score_video.video.tower import VisionTower, load_tower


def tower_of(source: str, size: int) -> VisionTower:
    """A DINOv2 for frames of ``size`` pixels. Raises ScoreError for another model, or no whole number of patches."""
    tower = load_tower(source)
    if tower.model.config.model_type != "dinov2":
        raise ScoreError(f"--model must be a video MLLM or DINOv2, got {tower.model.config.model_type!r}")
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
        pictures = pictures_of(tower, pixels)
        everything = torch.arange(len(pictures.tokens), device=pixels.device)
        partial(tower, pixels, everything)  # warms up
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
    """Normalised, [T, 3, H, W]; in the tower's shape, as :meth:`VisionTower.encode` makes them."""
    sampled = read_frames(path, num_frames=frames, fit=lambda height, width: (tower.height, tower.width)).frames
    pixels = torch.from_numpy(sampled).to(tower.device).permute(0, 3, 1, 2).float() / 255
    mean, std = (pixels.new_tensor(values)[:, None, None] for values in (tower.mean, tower.std))
    return (pixels - mean) / std


def pictures_of(tower: VisionTower, pixels: Tensor) -> PackedVideos:
    """Thumbnails of all patches, of one video."""
    patch = tower.patch
    rows, columns = tower.height // patch, tower.width // patch
    patches = pixels.unfold(2, patch, patch).unfold(3, patch, patch).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    one = torch.arange(len(patches), device=pixels.device)[:, None]
    return thumbnails.of_tokens(patches, SimpleNamespace(patch_size=patch), one, [(len(pixels), rows, columns)])


def partial(tower: VisionTower, pixels: Tensor, index: Tensor) -> Tensor:
    """Features [K, D] of patches, int64 [K] ascending rows of all frames': each frame's see each other and its class
    token, and no others. Positions are those in the whole frame."""
    model, per_frame = tower.model, tower.height // tower.patch * (tower.width // tower.patch)
    embedded = model.embeddings(pixels)  # [T, 1 + N, D]
    parts = [embedded.new_empty(0, embedded.shape[2])]
    for frame in range(len(pixels)):
        own = index[(index >= frame * per_frame) & (index < (frame + 1) * per_frame)] - frame * per_frame
        if len(own):
            hidden = embedded[frame : frame + 1, torch.cat([own.new_zeros(1), own + 1])]
            parts.append(model.layernorm(model.encoder(hidden).last_hidden_state)[0, 1:])
    return torch.cat(parts)


def _timed(tower: VisionTower, pixels: Tensor, index: Tensor) -> tuple[Tensor, float]:
    start = clock(tower.device)
    features = partial(tower, pixels, index)
    return features, clock(tower.device) - start


def _add(row: Row, encoded: float, seconds: float, cosine: float) -> None:
    row.encoded.append(encoded)
    row.seconds.append(seconds)
    row.cosine.append(cosine)
