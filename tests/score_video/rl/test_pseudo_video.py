"""Pseudo-videos: what each motion does to the pixels of a still."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from score_video.rl.pseudo_video import MOTIONS, PAN_WINDOW, ZOOM, pseudo_video


def ramp(height: int = 24, width: int = 40) -> Tensor:
    """float [H, W, 3]: red grows to the right, green downwards, so that a pixel tells where it is from."""
    x = torch.linspace(0, 1, width).expand(height, width)
    y = torch.linspace(0, 1, height)[:, None].expand(height, width)
    return torch.stack([x, y, torch.full_like(x, 0.5)], dim=2)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(MOTIONS)),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 5),
    st.booleans(),
    st.integers(0, 2**63 - 1),
)
def test_shape_dtype_range_and_seed(motion: str, height: int, width: int, frames: int, floats: bool, seed: int) -> None:
    image = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    if floats:
        image = image / 255
    video = pseudo_video(image, frames, motion, seed=seed)
    assert video.shape == (frames, height, width, 3)
    assert video.dtype == image.dtype
    assert video.min() >= 0
    assert video.max() <= (1 if floats else 255)
    assert torch.equal(video, pseudo_video(image, frames, motion, seed=seed))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_repeat_is_the_image_to_the_bit(dtype: torch.dtype) -> None:
    image = (ramp() * 255).to(torch.uint8) if dtype == torch.uint8 else ramp()
    assert torch.equal(pseudo_video(image, 3, "repeat"), image.expand(3, *image.shape))


@pytest.mark.parametrize("seed", range(8))
def test_pan_shows_a_window_that_moves_one_way(seed: int) -> None:
    video = pseudo_video(ramp(), 9, "pan", seed=seed)
    middle = video[:, 12, 20, :2]  # where the middle of the window is, in images
    path = middle.diff(dim=0)
    travelled = middle[-1] - middle[0]
    assert travelled.abs().max() == pytest.approx(1 - PAN_WINDOW, abs=0.02)  # from border to border
    assert (path * travelled.sign() >= -1e-6).all()
    # slow at both ends
    assert path[0].norm() < path[4].norm() / 2
    size = video[:, :, -1, 0] - video[:, :, 0, 0]
    assert size.min() == pytest.approx(PAN_WINDOW, abs=0.04)
    assert size.max() == pytest.approx(PAN_WINDOW, abs=0.04)


def test_zoom_goes_in_and_out() -> None:
    directions = set()
    for seed in range(12):
        video = pseudo_video(ramp(), 7, "zoom", seed=seed)
        seen = video[:, 12, -1, 0] - video[:, 12, 0, 0]
        inwards = bool(seen[0] > seen[-1])
        directions.add(inwards)
        assert (seen.diff() <= 1e-6).all() if inwards else (seen.diff() >= -1e-6).all()
        assert seen.max() == pytest.approx(1, abs=0.01)
        assert seen.min() == pytest.approx(1 / ZOOM, abs=0.04)
        whole = video[0] if inwards else video[-1]
        torch.testing.assert_close(whole, ramp(), atol=1e-5, rtol=0)
    assert directions == {True, False}


def test_noise_differs_from_frame_to_frame_but_not_on_average() -> None:
    image = torch.full((16, 16, 3), 0.5)
    video = pseudo_video(image, 64, "noise")
    assert not torch.equal(video[0], video[1])
    assert float((video - image).std()) == pytest.approx(0.04, rel=0.02)
    assert float((video - image).mean()) == pytest.approx(0, abs=1e-3)


def test_mixed_is_each_of_the_others() -> None:
    image = ramp(8, 8)
    still = {bool(torch.equal(v[0], v[1])) for v in (pseudo_video(image, 4, "mixed", seed=s) for s in range(16))}
    assert still == {True, False}


def test_other_seeds_move_otherwise() -> None:
    assert not torch.equal(pseudo_video(ramp(), 3, "pan", seed=1), pseudo_video(ramp(), 3, "pan", seed=2))


@pytest.mark.parametrize(
    ("image", "frames", "motion", "error", "says"),
    [
        (torch.zeros(4, 4), 2, "pan", ValueError, r"image must be \[height, width, 3\], got \[4, 4\]"),
        (torch.zeros(3, 4, 4), 2, "pan", ValueError, r"\[3, 4, 4\]"),
        (torch.zeros(0, 4, 3), 2, "pan", ValueError, r"\[0, 4, 3\]"),
        (torch.zeros(4, 4, 3, dtype=torch.int64), 2, "pan", TypeError, "uint8 or floats, got torch.int64"),
        ([[1]], 2, "pan", TypeError, "list"),
        (torch.full((4, 4, 3), 2.0), 2, "pan", ValueError, "values from 0 to 1, got 2 to 2"),
        (torch.full((4, 4, 3), torch.nan), 2, "pan", ValueError, "nan"),
        (torch.zeros(4, 4, 3), 0, "pan", ValueError, "frames must be an integer of at least 1, got 0"),
        (torch.zeros(4, 4, 3), True, "pan", ValueError, "got True"),
        (torch.zeros(4, 4, 3), 2, "wobble", ValueError, "no motion 'wobble'; there are repeat, pan"),
    ],
)
def test_bad_arguments(image: Tensor, frames: int, motion: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        pseudo_video(image, frames, motion)
