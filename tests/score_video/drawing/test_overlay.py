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


def test_what_the_tower_did_not_see_is_black(tmp_path: Path) -> None:
    """White frames of six patches: two are kept, two dropped, two not seen, which have no surprise either."""
    videos = PackedVideos.from_frames([torch.randn(2, ROWS, COLUMNS, 8, generator=torch.Generator().manual_seed(0))])
    kept, seen = torch.tensor([0, 4, 6, 10]), torch.tensor([0, 1, 4, 5, 6, 7, 10, 11])
    white = np.full((2, ROWS * CELL, COLUMNS * CELL, 3), 255, np.uint8)
    write_pictures(tmp_path, "a clip", "a rule", white, np.arange(2.0), videos, kept, seen=seen)
    with av.open(str(tmp_path / "overlay.mp4")) as overlay:
        picture = [frame.to_ndarray(format="rgb24") for frame in overlay.decode(video=0)][1]
    left, heat = 12 + CELL // 2, 12 + COLUMNS * CELL + 12 + CELL // 2
    for place in range(ROWS * COLUMNS):
        row, column = divmod(place, COLUMNS)
        y = 24 + 12 + row * CELL + CELL // 2
        brightness = int(picture[y, left + column * CELL].min())
        colours = np.ptp(picture[y, heat + column * CELL].astype(int))
        if place + 6 not in seen:
            assert brightness < 12, place
            assert colours < 12, place  # grey
        else:
            assert brightness > 230 if place + 6 in kept else 30 < brightness < 120, place
            assert colours > 30, place
