"""DINOv2 on a part of its patches: what a choice before the tower leaves of them, and what it is made from.

Its layers see one frame with its class token, so that a patch that is left out is as good as one that is masked out of
all attention.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from score_video import thumbnails
from score_video.before_tower import Gate, Seen, fill_sources, filled
from score_video.errors import ScoreError
from score_video.packed import PackedVideos
from score_video.progress import Phases
from score_video.video.tower import VisionTower

_TOKENS_AT_ONCE = 2048  # in the encoder: more gains nothing, and memory stays small


def check_partial(tower: VisionTower) -> None:
    """Raises ScoreError for a tower that cannot be run in part."""
    if tower.model.config.model_type != "dinov2":
        raise ScoreError(f"tower must be DINOv2 to be run in part, {tower.name} is {tower.model.config.model_type!r}")


def thumbnails_of(tower: VisionTower, pixels: Tensor) -> PackedVideos:
    """What a gate chooses from: thumbnails of all patches of one video.

    Args:
        tower: its patches.
        pixels: [T, 3, height, width], by :meth:`VisionTower.pixels`.
    """
    side = tower.patch
    return thumbnails.of_patches(pixels, side, [(len(pixels), tower.height // side, tower.width // side)])


def partial_tokens(tower: VisionTower, pixels: Tensor, index: Tensor) -> Tensor:
    """Features [K, D] of some patches: each frame's see each other and its class token, and no others. Positions are
    those in the whole frame.

    Args:
        tower: a DINOv2.
        pixels: [T, 3, height, width], by :meth:`VisionTower.pixels`.
        index: int64 [K], ascending rows of all frames' patches.
    """
    return tokens_of_embedded(tower, tower.model.embeddings(pixels), index)


def tokens_of_embedded(tower: VisionTower, embedded: Tensor, index: Tensor, source: Tensor | None = None) -> Tensor:
    """As :func:`partial_tokens`, of what the tower's embeddings make of pixels.

    Args:
        tower: a DINOv2.
        embedded: [T, 1 + N, D], class tokens first.
        index: int64 [K], ascending rows of F frames' patches.
        source: int64 [F], which of the T each of the F frames is, where one is seen in several parts; None: F is T.
    """
    model, per_frame = tower.model, embedded.shape[1] - 1
    frame, place = index // per_frame, index % per_frame
    counts = torch.bincount(frame)
    tokens = embedded.new_empty(len(index), embedded.shape[2])
    for count in torch.unique(counts[counts > 0]).tolist():
        rows = (counts[frame] == count).nonzero().view(-1, count)  # of frames of which as many are seen, together
        for own in torch.split(rows, max(1, _TOKENS_AT_ONCE // (count + 1))):
            inside = torch.nn.functional.pad(place[own] + 1, (1, 0))  # the class token's place is 0
            frames = frame[own[:, :1]]
            hidden = embedded[frames if source is None else source[frames], inside]
            tokens[own] = model.layernorm(model.encoder(hidden).last_hidden_state)[:, 1:]
    return tokens


@torch.inference_mode()
def encode_seen(tower: VisionTower, pixels: Tensor, gate: Gate, phases: Phases | None = None) -> tuple[Tensor, Seen]:
    """Chooses among the patches of one video, and runs the tower on them and their halo.

    Args:
        tower: a DINOv2.
        pixels: [T, 3, height, width], by :meth:`VisionTower.pixels`.
        gate: chooses.
        phases: measures "gate" and "tower"; None: nothing does.

    Returns:
        tokens [L, D], those that were not seen filled in, and what was seen.
    """
    phases = phases or Phases()
    with phases("gate"):
        pictures = thumbnails_of(tower, pixels)
        seen = gate.choose(pictures)
    with phases("tower"):
        features = partial_tokens(tower, pixels, seen.encoded)
        own = features[torch.searchsorted(seen.encoded, seen.kept.index)]  # without the halo
        return filled(own, fill_sources(pictures, seen.kept.index)), seen


def encode_video(
    tower: VisionTower, frames: npt.NDArray[np.uint8], gate: Gate | None, phases: Phases | None = None
) -> tuple[PackedVideos, Seen | None]:
    """The tokens of one video, by a tower that sees what a gate lets through.

    Args:
        tower: any; with a gate a DINOv2.
        frames: uint8 [T, H, W, 3], RGB, T at least 1, of any size.
        gate: chooses; None: the tower sees everything.
        phases: measures "tower"; with a gate before that "pixels" (scaling frames) and "gate". None: nothing does.

    Returns:
        a batch of one, tokens that were not seen filled in, and what was seen; None: everything.

    Raises:
        ScoreError: as :meth:`VisionTower.encode`, :func:`check_partial` and :meth:`Gate.choose`.
    """
    phases = phases or Phases()
    if gate is None:
        with phases("tower"):
            return tower.encode(frames), None
    check_partial(tower)
    with phases("pixels"):
        pixels = tower.pixels(frames)
    tokens, seen = encode_seen(tower, pixels, gate, phases)
    rows, columns = tower.height // tower.patch, tower.width // tower.patch
    return PackedVideos.from_frames([tokens.view(len(frames), rows, columns, -1)]), seen
