"""The relative state against the same written token by token in float64, and what must not change it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import pytest
import torch
from helpers.packs import RAGGED, random_frames, random_videos, shapes
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from score_ext import reference as op_reference
from score_video.packed import PackedVideos
from score_video.policy.relative import APPEARANCE_WIDTH, TEMPORAL_WIDTH, relative_state

WIDTH = TEMPORAL_WIDTH + APPEARANCE_WIDTH
Place = tuple[int, int, int]


def scores(values: list[float | None], groups: list[int]) -> list[float]:
    """asinh of the standard score of each value among those of its group; 0 where there is none."""
    found = []
    for value, group in zip(values, groups, strict=True):
        others = torch.tensor([v for v, g in zip(values, groups, strict=True) if g == group and v is not None]).double()
        if value is None:
            found.append(0.0)
        else:
            deviation = math.sqrt(float(others.var(correction=0)) + 1e-6)
            found.append(math.asinh((value - float(others.mean())) / deviation))
    return found


def reference(frames: Tensor) -> Tensor:
    """[T, R, C, D] -> [T R C, WIDTH]."""
    x = frames.double()
    norm = x.norm(dim=3, keepdim=True)
    u = torch.where(norm > 0, x / norm, 0.0)
    m = u.mean((0, 1, 2))
    places = [(t, r, c) for t in range(x.shape[0]) for r in range(x.shape[1]) for c in range(x.shape[2])]

    def soft(a: Tensor, b: Tensor) -> float:
        return float(a @ b / ((a @ a + 1e-6) * (b @ b + 1e-6)).sqrt())

    def centred(a: Place, b: Place) -> float:
        return soft(u[a] - m, u[b] - m)

    def to_mean(place: Place, mean: Tensor) -> float:
        return float(u[place] @ mean / (mean @ mean + 1e-6).sqrt())

    def existing(candidates: list[Place]) -> list[Place]:
        return [place for place in candidates if place in places]

    def best(place: Place, t: int) -> float | None:
        around = existing([(t, place[1] + down, place[2] + right) for down in (-1, 0, 1) for right in (-1, 0, 1)])
        return max((centred(place, other) for other in around), default=None)

    def same(place: Place, t: int, cosine: Callable[[Place, Place], float] = centred) -> float | None:
        return next((cosine(place, other) for other in existing([(t, *place[1:])])), None)

    columns: list[list[float | None]] = []
    for place in places:
        t, r, c = place
        near = [
            centred(place, other) for other in existing([(t, r - 1, c), (t, r + 1, c), (t, r, c - 1), (t, r, c + 1)])
        ]
        frame = u[t].mean((0, 1))
        columns.append([
            same(place, t - 1), same(place, t - 2), same(place, t - 4), best(place, t - 1),
            same(place, t + 1), best(place, t + 1), same(place, t - 1, lambda a, b: float(u[a] @ u[b])),
            sum(near) / len(near) if near else None, max(near, default=None),
            soft(u[place] - m, frame - m), to_mean(place, frame), to_mean(place, m),
        ])  # fmt: skip
    video, frame_number = [0] * len(places), [place[0] for place in places]
    by_quantity = list(map(list, zip(*columns, strict=True)))
    log_norm = [math.log(float(norm[place])) if norm[place] > 0 else None for place in places]

    def part(quantities: list[list[float | None]]) -> list[list[float]]:
        plain = [[0.0 if value is None else value for value in values] for values in quantities]
        grouped = [[scores(values, groups) for values in quantities] for groups in (video, frame_number)]
        return [*plain, *grouped[0], *grouped[1]]

    def there(number: int) -> list[float]:
        return [float(value is not None) for value in by_quantity[number]]

    result = [*part(by_quantity[:7]), there(0), there(1), there(2), there(4)]
    result += [*part(by_quantity[7:]), there(7), scores(log_norm, video), scores(log_norm, frame_number)]
    return torch.tensor(result).T.float()


SCORES = [*range(7, 21), *range(30, 40), 41, 42]
"""Columns of cosines and log-norms as scores within the video and the frame."""


def close(found: Tensor, expected: Tensor) -> None:
    """float32 against float64. A cosine with nearly nothing (a frame's mean that is the video's, say) is right to some
    1e-5, 1e-8 over the 1e-3 that e allows for; a score divides that by the least deviation, 1e-3 again."""
    others = [column for column in range(expected.shape[1]) if column not in SCORES]
    torch.testing.assert_close(found[:, others], expected[:, others], rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(found[:, SCORES], expected[:, SCORES], rtol=5e-3, atol=5e-2)


@settings(max_examples=40, deadline=None)
@example([(2, 1, 2)], 9, 58, False)
@given(shapes.filter(lambda sizes: any(t for t, _, _ in sizes)), st.integers(4, 9), st.integers(0, 99), st.booleans())
def test_equals_reference(sizes: list[Place], width: int, seed: int, constant: bool) -> None:
    frames = [random_frames(size, width, seed + number) for number, size in enumerate(sizes)]
    if constant:
        frames[0] = torch.ones_like(frames[0]) * 0.1
    found = relative_state(PackedVideos.from_frames(frames))
    assert found.dtype == torch.float32
    close(found, torch.cat([reference(video) for video in frames if len(video)]))


def test_the_reference_of_the_op_is_this_one() -> None:
    for size in ((5, 3, 4), (1, 2, 2), (6, 1, 1)):
        frames = random_frames(size, 6, 1)
        videos = PackedVideos.from_frames([frames])
        sizes = videos.cu_seqlens, videos.tokens_per_frame, videos.columns
        close(op_reference.relative_state(videos.tokens, *sizes), reference(frames))


def test_frames_are_counted_where_they_are_not_known() -> None:
    videos = random_videos()
    assert videos.num_frames == sum(frames for frames, rows, columns in RAGGED if rows * columns)
    counted = dataclasses.replace(videos, num_frames=None)
    assert torch.equal(relative_state(counted), relative_state(videos))
    assert PackedVideos.cat([videos, videos]).num_frames == 2 * videos.num_frames
    assert PackedVideos.cat([videos, counted]).num_frames is None
    assert videos.to("meta").num_frames == videos.num_frames


def test_a_video_alone_or_in_a_batch() -> None:
    together = relative_state(random_videos())
    alone = [relative_state(PackedVideos.from_frames([random_frames(s, 6, i)])) for i, s in enumerate(RAGGED)]
    assert torch.equal(torch.cat(alone), together)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tokens(dtype: torch.dtype) -> None:
    videos = random_videos(dtype=dtype)
    wide = PackedVideos(videos.tokens.float(), videos.cu_seqlens, videos.tokens_per_frame, videos.columns)
    torch.testing.assert_close(relative_state(videos), relative_state(wide), rtol=1e-5, atol=1e-5)


def test_scaling_and_rotation_change_nothing() -> None:
    videos = random_videos(width=8)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1)))[0]
    for tokens in (videos.tokens * 37.0, videos.tokens * 1e-6, videos.tokens @ rotation):
        moved = PackedVideos(tokens, videos.cu_seqlens, videos.tokens_per_frame, videos.columns)
        close(relative_state(moved), relative_state(videos))


def test_wider_tokens_change_nothing() -> None:
    videos = random_videos(width=8)
    tokens = torch.cat([videos.tokens, torch.zeros(len(videos.tokens), 5)], dim=1)
    wide = PackedVideos(tokens, videos.cu_seqlens, videos.tokens_per_frame, videos.columns)
    close(relative_state(wide), relative_state(videos))


@pytest.mark.parametrize("scale", [1e-45, 1e-38, 1e30, 3e38])
def test_finite_for_any_finite_tokens(scale: float) -> None:
    videos = random_videos()
    tokens = (videos.tokens / videos.tokens.abs().max()) * scale
    tokens[::7] = 0
    odd = PackedVideos(tokens, videos.cu_seqlens, videos.tokens_per_frame, videos.columns)
    assert tokens.isfinite().all()
    assert relative_state(odd).isfinite().all()


def test_nan_stays_in_its_video() -> None:
    videos = random_videos(((3, 2, 2), (2, 2, 2), (4, 2, 2)))
    videos.tokens[14, 1] = torch.nan
    clean = relative_state(videos).isfinite().all(1)
    assert clean.tolist() == [True] * 12 + [False] * 8 + [True] * 16


def test_a_moved_token_is_found_nearby() -> None:
    """A square goes one column to the right: not where it was, but the best match is perfect; background stays."""
    background, square = torch.tensor([1.0, 0, 0]), torch.tensor([0, 1.0, 0])
    frames = background.expand(2, 3, 3, 3).clone()
    frames[0, 1, 0] = frames[1, 1, 1] = square
    state = relative_state(PackedVideos.from_frames([frames]))
    back_1, back_best = 0, 3
    moved = 9 + 3 + 1
    assert state[moved, back_1] < 0
    assert state[moved, back_best] == pytest.approx(1, abs=1e-4)
    assert state[9, back_1] == pytest.approx(1, abs=1e-4)


def test_empty_batch() -> None:
    assert relative_state(random_videos(((0, 2, 2), (0, 1, 1)))).shape == (0, WIDTH)
