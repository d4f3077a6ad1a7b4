"""The pictures show what was kept, and nothing else."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from score_video.drawing.overlay import PICTURES, write_pictures
from score_video.packed import PackedVideos

ROWS, COLUMNS, CELL = 2, 3, 40


@pytest.mark.parametrize(("frames", "token_frames"), [(3, 3), (4, 2), (5, 3), (1, 1)])
def test_kept_patches_are_bright_and_no_others(tmp_path: Path, frames: int, token_frames: int) -> None:
    """White frames: a patch is white where its token is kept. The last token of an odd number is of one frame."""
    generator = torch.Generator().manual_seed(frames)
    videos = PackedVideos.from_frames([torch.randn(token_frames, ROWS, COLUMNS, 8, generator=generator)])
    index = torch.randperm(len(videos.tokens), generator=generator)[: len(videos.tokens) // 2].sort().values
    white = np.full((frames, ROWS * CELL, COLUMNS * CELL, 3), 255, np.uint8)
    write_pictures(tmp_path, "a clip", "a rule", white, np.arange(frames, dtype=np.float64), videos, index)
    assert {path.name for path in tmp_path.iterdir()} == set(PICTURES)
    with av.open(str(tmp_path / "overlay.mp4")) as overlay:
        shown = [frame.to_ndarray(format="rgb24") for frame in overlay.decode(video=0)]
    together = -(-frames // token_frames)
    assert len(shown) == frames
    for number, picture in enumerate(shown):
        kept = set((index - number // together * ROWS * COLUMNS).tolist())
        for place in range(ROWS * COLUMNS):
            row, column = divmod(place, COLUMNS)
            y, x = 24 + 12 + row * CELL + CELL // 2, 12 + column * CELL + CELL // 2  # below the label, in the left half
            assert (picture[y, x].min() > 230) == (place in kept), (number, place)
    assert Image.open(tmp_path / "contact.png").size[0] >= 900
