"""The relative state against the same written token by token in float64, and what must not change it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from helpers.packs import RAGGED, random_frames, random_videos, shapes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from score_video.packed import PackedVideos
from score_video.policy import cosines
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


def close(found: Tensor, expected: Tensor) -> None:
    """float32 against float64: 1e-7 over the 1e-3 that both e and the least deviation allow for."""
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=2e-3)


@settings(max_examples=40, deadline=None)
@given(shapes.filter(lambda sizes: any(t for t, _, _ in sizes)), st.integers(1, 9), st.integers(0, 99), st.booleans())
def test_equals_reference(sizes: list[Place], width: int, seed: int, constant: bool) -> None:
    frames = [random_frames(size, width, seed + number) for number, size in enumerate(sizes)]
    if constant:
        frames[0] = torch.ones_like(frames[0]) * 0.1
    found = relative_state(PackedVideos.from_frames(frames))
    assert found.dtype == torch.float32
    close(found, torch.cat([reference(video) for video in frames if len(video)]))


def test_chunks_and_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    videos = random_videos((*RAGGED, (11, 2, 2), (9, 2, 2), (9, 1, 1)))
    whole = relative_state(videos)
    monkeypatch.setattr(cosines, "_CHUNK", 1)
    monkeypatch.setattr(cosines, "_CPU_BLOCK", 7)
    torch.testing.assert_close(relative_state(videos), whole, rtol=1e-4, atol=1e-4)


def test_a_video_alone_or_in_a_batch() -> None:
    together = relative_state(random_videos())
    alone = [relative_state(PackedVideos.from_frames([random_frames(s, 6, i)])) for i, s in enumerate(RAGGED)]
    torch.testing.assert_close(torch.cat(alone), together, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tokens(dtype: torch.dtype) -> None:
    videos = random_videos(dtype=dtype)
    wide = PackedVideos(videos.tokens.float(), videos.cu_seqlens, videos.tokens_per_frame, videos.columns)
    torch.testing.assert_close(relative_state(videos), relative_state(wide), rtol=0, atol=0)


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
    back_1, back_best = cosines.TEMPORAL.index("back_1"), cosines.TEMPORAL.index("back_best")
    moved = 9 + 3 + 1
    assert state[moved, back_1] < 0
    assert state[moved, back_best] == pytest.approx(1, abs=1e-4)
    assert state[9, back_1] == pytest.approx(1, abs=1e-4)


def test_empty_batch() -> None:
    assert relative_state(random_videos(((0, 2, 2), (0, 1, 1)))).shape == (0, WIDTH)


def test_memory_is_of_a_few_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """No temporary grows with frames * width: the largest tensor made is the chunk's buffer."""
    monkeypatch.setattr(cosines, "_CHUNK", 1 << 12)
    videos = random_videos(((200, 4, 4),), width=64)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves(out):
                if isinstance(tensor, Tensor) and tensor.untyped_storage().data_ptr() != source:
                    largest = max(largest, tensor.untyped_storage().nbytes())
            return out

    source = videos.tokens.untyped_storage().data_ptr()
    with Watch():
        relative_state(videos)
    assert largest < videos.tokens.nbytes
