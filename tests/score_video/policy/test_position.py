"""Places and position features, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from helpers.packs import RAGGED, random_videos
from torch import Tensor

from score_video.packed import PackedVideos
from score_video.policy.position import POSITION_WIDTH, position_features, token_places


def test_places_of_a_ragged_batch() -> None:
    places = token_places(random_videos(RAGGED))
    expected = [
        (video, t, y, x, *shape)
        for video, shape in enumerate(RAGGED)
        for t in range(shape[0])
        for y in range(shape[1])
        for x in range(shape[2])
    ]
    found = torch.stack(
        [places.video, places.frame, places.row, places.column, places.frames, places.rows, places.columns], dim=1
    )
    assert found.tolist() == [list(row) for row in expected]


def test_features_by_hand() -> None:
    """3 frames of 2 x 4: the token in the middle frame, second row, third column."""
    features = position_features(random_videos(((3, 2, 4),)))
    assert features.shape == (24, POSITION_WIDTH)
    assert features.dtype == torch.float32
    t, y, x = 1 / 2, 1.0, 2 / 3
    angles = [2**j * math.pi * u for u in (t, y, x) for j in range(3)]
    expected = [t, y, x, *map(math.sin, angles), *map(math.cos, angles)]
    assert features[8 + 4 + 2].tolist() == pytest.approx(expected, abs=1e-5)
    assert features[0, :3].tolist() == [0, 0, 0]
    assert features[-1, :3].tolist() == [1, 1, 1]


def test_what_there_is_one_of_is_at_0() -> None:
    features = position_features(random_videos(((1, 1, 1),)))
    assert features[0, :12].tolist() == [0] * 12
    assert features[0, 12:].tolist() == [1] * 9


def test_only_empty_videos() -> None:
    assert position_features(random_videos(((0, 2, 2), (0, 1, 1)))).shape == (0, POSITION_WIDTH)


def int32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


@pytest.mark.parametrize(
    ("sizes", "text"),
    [
        ((int32(0, 11), int32(4), int32(2)), "cu_seqlens must run from 0 to the 12 tokens, got 0 to 11"),
        ((int32(0, 13, 12), int32(1, 1), int32(1, 1)), "cu_seqlens must not fall, got 13 before 12"),
        ((int32(0), int32(), int32()), r"cu_seqlens must be \[videos \+ 1\]"),
        ((int32(0, 12), int32(5), int32(1)), r"tokens_per_frame\[0\] must divide its video's 12 tokens, got 5"),
        ((int32(0, 12), int32(0), int32(1)), r"tokens_per_frame\[0\] must divide its video's 12 tokens, got 0"),
        ((int32(0, 12), int32(4), int32(3)), r"columns\[0\] must divide its video's 4 tokens per frame, got 3"),
        ((int32(0, 12), int32(4), int32(0)), r"columns\[0\] must divide its video's 4 tokens per frame, got 0"),
        ((int32(0, 12), int32(4), int32(2, 2)), r"columns must be \[1\], one for each video, got \[2\]"),
    ],
)
def test_wrong_sizes(sizes: tuple[Tensor, Tensor, Tensor], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        token_places(PackedVideos(torch.zeros(12, 3), *sizes))


def test_wrong_dtype_and_tokens() -> None:
    with pytest.raises(TypeError, match="columns must be int32, got int64"):
        token_places(PackedVideos(torch.zeros(12, 3), int32(0, 12), int32(4), torch.tensor([2])))
    with pytest.raises(ValueError, match=r"tokens must be \[L, D\], D at least 1, got \[12\]"):
        token_places(PackedVideos(torch.zeros(12), int32(0, 12), int32(4), int32(2)))
