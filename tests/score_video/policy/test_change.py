"""The size of the change: against loops over tokens, over ragged batches and dtypes, and where there is no frame."""

from __future__ import annotations

import itertools

import pytest
import torch
from helpers.packs import RAGGED, random_frames, random_videos, shapes
from hypothesis import given, settings
from hypothesis import strategies as st

from score_video.packed import PackedVideos
from score_video.policy.change import CHANGE_WIDTH, change_features


def by_hand(frames: torch.Tensor) -> torch.Tensor:
    """[T, rows, columns, D] -> [T * rows * columns, 2], frame by frame; zero is at a right angle to all."""
    units = torch.nn.functional.normalize(frames.double(), dim=3)
    apart = [(2 - 2 * (a * b).sum(2)).clamp_min(0).sqrt() for a, b in itertools.pairwise(units)]
    nothing = torch.zeros(frames.shape[1:3], dtype=torch.float64)
    pairs = zip([nothing, *apart], [*apart, nothing], strict=True)
    rows = [torch.stack(pair, dim=2).flatten(0, 1) for pair, _ in zip(pairs, frames, strict=False)]
    return torch.cat(rows).float() if rows else torch.zeros(0, CHANGE_WIDTH)


@settings(max_examples=40, deadline=None)
@given(shapes, st.sampled_from([1, 3, 16]))
def test_equals_loops(sizes: list[tuple[int, int, int]], width: int) -> None:
    videos = [random_frames(size, width, number) for number, size in enumerate(sizes)]
    expected = torch.cat([by_hand(video) for video in videos])
    # the cosine's rounding, 1e-7, is 5e-4 under the root
    torch.testing.assert_close(change_features(PackedVideos.from_frames(videos)), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    videos = random_videos(dtype=dtype)
    wide = PackedVideos(videos.tokens.float(), videos.cu_seqlens, videos.tokens_per_frame, videos.columns)
    features = change_features(videos)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, change_features(wide), rtol=1e-4, atol=1e-3)


def test_a_flash_is_far_from_both_frames_and_nothing_moves_in_a_still() -> None:
    still = torch.randn(1, 2, 2, 8).expand(5, 2, 2, 8).clone()
    assert change_features(PackedVideos.from_frames([still])).abs().max() < 1e-3
    still[2, 0, 1] = -still[2, 0, 1]
    features = change_features(PackedVideos.from_frames([still])).view(5, 2, 2, 2)
    assert features[2, 0, 1].tolist() == pytest.approx([2.0, 2.0], abs=1e-3)
    assert features[3, 0, 1].tolist() == pytest.approx([2.0, 0.0], abs=1e-3)
    assert features[1, 0, 1].tolist() == pytest.approx([0.0, 2.0], abs=1e-3)


def test_one_frame_and_none() -> None:
    videos = PackedVideos.from_frames([torch.randn(1, 2, 3, 4), torch.randn(0, 2, 3, 4)])
    assert torch.equal(change_features(videos), torch.zeros(6, 2))
    assert change_features(PackedVideos.from_frames([torch.randn(0, 2, 3, 4)])).shape == (0, 2)


def test_nan_stays_with_its_neighbours() -> None:
    videos = random_videos()
    clean = change_features(videos)
    begin = int(videos.cu_seqlens[0])
    videos.tokens[begin, 0] = torch.nan
    nan = change_features(videos).isnan()
    t, rows, columns = RAGGED[0]
    assert t > 1
    assert nan.nonzero().tolist() == [[begin, 1], [begin + rows * columns, 0]]
    assert not clean.isnan().any()
