"""Operations of a vision tower like Qwen2.5-VL's, which sees all tokens of a video or some of them."""

from __future__ import annotations

from bench.prefill.geometry import Geometry

MERGE = 2
"""Rows and columns of patches in a token."""
FRAMES = 2
"""That a patch spans."""
CHANNELS = 3


def tower_flops(geometry: Geometry, shape: tuple[int, int, int], share: float = 1.0) -> float:
    """Floating-point operations of tower and merger, counted as :func:`bench.prefill.geometry.prefill_flops` counts.

    Args:
        geometry: of a Qwen2.5-VL.
        shape: frames, rows and columns of the video's tokens.
        share: of the tokens that it sees, evenly spread over frames and windows.
    """
    vision = geometry.vision
    width, hidden, depth = vision["hidden_size"], vision["intermediate_size"], vision["depth"]
    frames, rows, columns = shape
    frame = rows * columns * MERGE**2 * share  # patches
    patches = frames * frame
    side = vision["window_size"] // vision["patch_size"]
    window = min(side**2 * share, frame)
    linear = 2 * patches * depth * (4 * width**2 + 3 * width * hidden)
    whole = len(vision["fullatt_block_indexes"])
    attention = 4 * patches * width * (whole * frame + (depth - whole) * window)
    embedding = 2 * patches * width * CHANNELS * FRAMES * vision["patch_size"] ** 2
    merged = MERGE**2 * width
    merger = 2 * (patches / MERGE**2) * merged * (merged + vision["out_hidden_size"])
    return float(linear + attention + embedding + merger)
