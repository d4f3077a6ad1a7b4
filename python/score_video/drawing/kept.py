"""Pictures of a compression from its tokens: patches of pixels, or a model's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

import score_ext
from score_video.drawing.overlay import Compressed, contact_sheet, write_overlay
from score_video.packed import PackedVideos

PICTURES = ("contact.png", "overlay.mp4")


def write_pictures(
    folder: Path,
    name: str,
    how: str,
    frames: npt.NDArray[np.uint8],
    timestamps: npt.NDArray[np.float64],
    video: PackedVideos,
    index: Tensor,
) -> None:
    """Writes ``PICTURES``: see :mod:`score_video.drawing.overlay`.

    Args:
        folder: an existing folder to write into.
        name, how: of the video and of what decided, for the title.
        frames: uint8 [T, H, W, 3]; H and W multiples of the rows and columns of tokens.
        timestamps: float64 [T], seconds.
        video: one video on the CPU, of T frames of tokens; or of ceil(T / m), where a model makes one frame of tokens
            of each m frames.
        index: int64 [K], the tokens that are kept.

    Raises:
        OSError: a file cannot be written.
    """
    per_frame, columns = int(video.tokens_per_frame[0]), int(video.columns[0])
    grid = len(video.tokens) // per_frame, per_frame // columns, columns
    together = -(-len(frames) // grid[0])  # frames to a token
    kept = np.zeros(len(video.tokens), dtype=np.bool_)
    kept[index.numpy()] = True
    surprise = score_ext.surprise(video.tokens, video.cu_seqlens, video.tokens_per_frame).numpy()
    of_frame = np.arange(len(frames)) // together
    facts = (
        f"{how}: kept {len(index)} of {len(kept)} tokens ({len(index) / len(kept):.2%}), "
        f"{len(frames)} frames of {grid[1]}x{grid[2]} patches"
    )
    if together > 1:
        facts += f", {together} frames to a token"
    pictured = Compressed(frames, timestamps, kept.reshape(grid)[of_frame], surprise.reshape(grid)[of_frame])
    contact_sheet(pictured, name, facts).save(folder / PICTURES[0])
    write_overlay(folder / PICTURES[1], pictured)
