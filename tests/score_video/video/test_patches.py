"""Scaling to whole patches, and cutting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from score_video.video.patches import fit_to_patches, to_patches


@pytest.mark.parametrize(
    ("height", "width", "wanted"),
    [
        (720, 1280, (252, 448)),
        (1280, 720, (448, 252)),
        (48, 64, (336, 448)),
        (10, 16384, (28, 448)),  # at least one patch
        (1, 1, (448, 448)),
    ],
)
def test_fit(height: int, width: int, wanted: tuple[int, int]) -> None:
    assert fit_to_patches(height, width, patch=28, size=448) == wanted


@given(st.integers(1, 16384), st.integers(1, 16384), st.integers(1, 64), st.integers(64, 1024))
def test_fit_gives_whole_patches(height: int, width: int, patch: int, size: int) -> None:
    h, w = fit_to_patches(height, width, patch=patch, size=size)
    assert h % patch == w % patch == 0
    assert patch <= min(h, w)
    assert abs(max(h, w) - size) <= patch / 2
    assert (h >= w) == (height >= width) or h == w


@pytest.mark.parametrize(("patch", "size"), [(0, 448), (-1, 448), (500, 448), (28, 0)])
def test_impossible_fit(patch: int, size: int) -> None:
    with pytest.raises(ValueError, match="patch"):
        fit_to_patches(720, 1280, patch=patch, size=size)


def test_each_token_is_its_patch() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, 6, 9, 3), dtype=np.uint8)
    tokens, grid = to_patches(frames, 3)
    assert grid == (2, 2, 3)
    assert tokens.shape == (12, 27)
    assert tokens.dtype == torch.float32
    assert tokens.is_contiguous()
    for row in range(12):
        t, y, x = row // 6, row // 3 % 2, row % 3
        patch = frames[t, y * 3 : y * 3 + 3, x * 3 : x * 3 + 3].astype(np.float32)
        np.testing.assert_allclose(tokens[row], (patch.transpose(2, 0, 1).ravel() / 255 - 0.5) / 0.5, atol=1e-6)


@pytest.mark.parametrize(("shape", "patch"), [((2, 6, 9), 3), ((2, 6, 9, 4), 3), ((2, 6, 9, 3), 4), ((2, 6, 9, 3), 0)])
def test_impossible_patches(shape: tuple[int, ...], patch: int) -> None:
    with pytest.raises(ValueError, match=r"frames"):
        to_patches(np.zeros(shape, dtype=np.uint8), patch)
