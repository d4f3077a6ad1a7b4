"""Frames to patch tokens: the visual tokens of a video before any model has looked at it.

A patch token is the flattened pixels of one square patch, so that compression can be tried on any video without a
vision tower. A model's own tokens take its place wherever a model is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from score_video.errors import ScoreError

if TYPE_CHECKING:
    import torch

# Pixels p in 0..255 become (p / 255 - MEAN) / STD, that is, lie in [-1, 1]: the normalisation that SigLIP-style vision
# towers (LLaVA-OneVision, Qwen3-VL) apply to each colour channel.
MEAN = 0.5
STD = 0.5


def fit_to_patches(height: int, width: int, *, patch: int, size: int) -> tuple[int, int]:
    """Size to which a frame is scaled so that its longest side is about ``size`` and both sides hold whole patches.

    Args:
        height, width: size of the displayed frame, in pixels.
        patch: side of a patch, in pixels.
        size: wanted longest side, in pixels; rounded to whole patches.

    Returns:
        (height, width) in pixels, multiples of ``patch``, at least one patch each. The aspect ratio is kept up to that
        rounding.

    Raises:
        ValueError: ``patch`` is not positive, or larger than ``size``.
    """
    if patch < 1:
        raise ScoreError(f"patch must be at least 1 pixel, got {patch}")
    if size < patch:
        raise ScoreError(f"a patch of {patch} pixels is larger than the frame: its longest side is {size} (size)")
    scale = size / max(height, width)
    return (
        max(1, round(height * scale / patch)) * patch,
        max(1, round(width * scale / patch)) * patch,
    )


def to_patches(frames: npt.NDArray[np.uint8], patch: int) -> tuple[torch.Tensor, tuple[int, int, int]]:
    """Cuts frames into patch tokens.

    Args:
        frames: uint8 [T, H, W, 3], RGB; H and W multiples of ``patch``.
        patch: side of a patch, in pixels.

    Returns:
        tokens: float32 [T * gh * gw, 3 * patch * patch], normalised by ``MEAN`` and ``STD``; row-major in (t, y, x),
            and within a token in (channel, y, x).
        grid: (T, gh, gw).

    Raises:
        ValueError: ``frames`` has another shape, or its sides are no multiples of ``patch``.
    """
    if frames.ndim != 4 or frames.shape[3] != 3:
        raise ScoreError(f"frames must be [T, H, W, 3], got {list(frames.shape)}")
    import torch  # the process that only reads frames does without it

    t, height, width, _ = frames.shape
    if patch < 1 or height % patch or width % patch:
        raise ScoreError(f"frames of {width}x{height} pixels cannot be cut into patches of {patch}")
    gh, gw = height // patch, width // patch
    # [T, gh, p, gw, p, 3] -> [T, gh, gw, 3, p, p]; still bytes, so that only one float copy is ever made
    cut = torch.from_numpy(frames).view(t, gh, patch, gw, patch, 3).permute(0, 1, 3, 5, 2, 4)
    tokens = cut.to(torch.float32, memory_format=torch.contiguous_format).reshape(t * gh * gw, 3 * patch * patch)
    return tokens.div_(255.0).sub_(MEAN).div_(STD), (t, gh, gw)
