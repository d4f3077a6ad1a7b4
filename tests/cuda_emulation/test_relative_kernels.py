"""relative_measures and relative_rows on CUDA, emulated, against the CPU's."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from emulated_ops import Ops
from torch import Tensor

import score_ext  # noqa: F401 (registers the ops)

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def int32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32)


class Batch(NamedTuple):
    """The first arguments of relative_measures."""

    tokens: Tensor
    cu_seqlens: Tensor
    tokens_per_frame: Tensor
    columns: Tensor
    num_frames: int


def batch(videos: list[tuple[int, int, int]], width: int, dtype: torch.dtype, noise: float = 0.5) -> Batch:
    """Videos of (frames, rows, columns), each a still picture and noise."""
    torch.manual_seed(width)
    parts = [torch.randn(1, r * c, width) + noise * torch.randn(t, r * c, width) for t, r, c in videos]
    tokens = torch.cat([part.flatten(0, 1) for part in parts]).to(dtype)
    cu = torch.tensor([0, *(t * r * c for t, r, c in videos)]).cumsum(0).to(torch.int32)
    per_frame, columns = int32(*(r * c for _, r, c in videos)), int32(*(c for _, _, c in videos))
    return Batch(tokens, cu, per_frame, columns, sum(t for t, _, _ in videos))


# every relation of a video's frames to a tile's, frames of one row, one column and one token, an empty video
RAGGED = [(5, 3, 4), (0, 2, 2), (2, 1, 7), (3, 6, 1), (4, 1, 1), (1, 2, 2), (10, 2, 3)]


def assert_equals_cpu(ops: Ops, given: Batch, misalignment: int = 0, tolerance: float = 1e-4) -> None:
    measures, moments = torch.ops.score.relative_measures(*given)
    found_measures, found_moments = ops.relative_measures(*given, misalignment=misalignment)
    slack = torch.full((13,), tolerance)
    slack[9] = max(tolerance, 5e-4)  # a cosine to the frame's mean is rounding where that is the video's
    infinite = (measures == -math.inf) & (found_measures == -math.inf)
    assert bool((((found_measures - measures).abs() <= slack + 1e-6 * measures.abs()) | infinite).all())
    mean, inverse = moments.unbind(2)
    found_mean, found_inverse = found_moments.unbind(2)
    assert bool(((found_mean - mean).abs() <= slack + 1e-6 * mean.abs()).all())
    # the reciprocal of a deviation is off by as much more as that is smaller than 1
    assert bool(((found_inverse - inverse).abs() <= 10 * slack * inverse.square()).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("width", [1, 16, 40, 257])
def test_measures_equal_cpu(ops: Ops, width: int, dtype: torch.dtype) -> None:
    given = batch(RAGGED, width, dtype)
    assert_equals_cpu(ops, given)
    assert_equals_cpu(ops, given, misalignment=given.tokens.element_size())


# from 1 vector of 16 bytes a thread to 8, and rows that only the loop over elements takes; several slices of columns
@pytest.mark.parametrize(
    ("width", "dtype"),
    [
        (520, torch.float32),
        (3584, torch.bfloat16),
        (6144, torch.float32),
        (16_384, torch.bfloat16),
        (16_392, torch.bfloat16),
    ],
    ids=str,
)
def test_measures_of_wide_tokens_equal_cpu(ops: Ops, width: int, dtype: torch.dtype) -> None:
    assert_equals_cpu(ops, batch([(3, 2, 2), (1, 1, 3)], width, dtype))


# more than one tile of a frame, with as many columns as lie beside each other in shared memory, and with more
@pytest.mark.parametrize(
    "frames", [(5, 12, 25), (2, 4, 40), (3, 4, 41), (2, 3, 100), (3, 1, 150), (2, 140, 1)], ids=str
)
def test_measures_of_large_frames_equal_cpu(ops_on_devices: Ops, frames: tuple[int, int, int]) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        assert_equals_cpu(ops_on_devices, batch([(1, 1, 2), frames], 24, dtype))


def test_a_video_does_not_depend_on_what_is_beside_it(ops: Ops) -> None:
    """Nor on the frames of a tile: two in a small batch, four in a large one for the device."""
    ops = Ops(ops.emulator, resident_blocks=1)
    video, more = batch([(5, 1, 2)], 160, torch.bfloat16), batch([(5, 1, 2), (7, 9, 15)], 160, torch.bfloat16)
    more.tokens[: len(video.tokens)] = video.tokens
    alone, beside = ops.relative_measures(*video), ops.relative_measures(*more)
    assert torch.equal(alone[0], beside[0][: len(video.tokens)])
    assert torch.equal(alone[1], torch.cat([beside[1][:5], beside[1][-2:-1]]))
    torch.testing.assert_close(beside[0], torch.ops.score.relative_measures(*more)[0], rtol=1e-6, atol=2e-5)


@pytest.mark.parametrize("noise", [1e-3, 1e-6])
def test_measures_of_a_still_video_equal_cpu(ops: Ops, noise: float) -> None:
    # a direction's float32 rounding is that much larger beside what differs from the mean
    assert_equals_cpu(ops, batch([(6, 3, 3), (4, 1, 1)], 128, torch.float32, noise), tolerance=1e-3)


@pytest.mark.parametrize("width", [7, 40, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_measures_of_any_size_equal_cpu(ops: Ops, width: int, dtype: torch.dtype) -> None:
    given = batch([(4, 2, 3), (2, 3, 2)], width, torch.float32)
    sizes = torch.tensor([1.0, 1e30, 1e-30, 0.0, 1e-42, 3e37]).repeat(6)
    tokens = (given.tokens.clamp(-3, 3).double() * sizes[:, None]).to(dtype)
    assert_equals_cpu(ops, given._replace(tokens=tokens))


def test_nan_and_infinity_stay_in_their_video(ops: Ops) -> None:
    given = batch([(5, 2, 2)] * 4, 32, torch.float32)
    clean = ops.relative_measures(*given)
    given.tokens[3, 5], given.tokens[2 * 20 + 7, 0] = math.nan, math.inf
    found = ops.relative_measures(*given)
    for video in (1, 3):
        rows, frames = slice(20 * video, 20 * video + 20), slice(5 * video, 5 * video + 5)
        assert torch.equal(found[0][rows], clean[0][rows])
        assert torch.equal(found[1][frames], clean[1][frames])
    assert bool(found[0][:20, 9:12].isnan().all() and found[0][40:60, 9:12].isnan().all())


@pytest.mark.parametrize("out_dtype", DTYPES, ids=str)
def test_rows_equal_cpu(ops: Ops, out_dtype: torch.dtype) -> None:
    given = batch(RAGGED, 24, torch.float32)
    given.tokens[7] = 0
    measures, moments = torch.ops.score.relative_measures(*given)
    length, tolerance = len(measures), {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 2e-2}[out_dtype]
    features = torch.randn(length, 3)
    for parts in ((True, True, True), (True, False, False), (False, True, False), (False, False, True)):
        for begin, end, extra in ((0, length, features), (5, length - 2, None), (3, 3, None)):
            arguments = (measures, moments, *given[1:4], extra, begin, end, out_dtype, *parts)
            expected = torch.ops.score.relative_rows(*arguments)
            torch.testing.assert_close(ops.relative_rows(*arguments), expected, rtol=tolerance, atol=tolerance)


def test_rows_of_many_videos_equal_cpu(ops_on_devices: Ops) -> None:
    given = batch([(number % 3, 1, 1 + number % 2) for number in range(700)], 2, torch.float32)
    measures, moments = torch.ops.score.relative_measures(*given)
    arguments = (measures, moments, *given[1:4], None, 0, len(measures), torch.float32)
    expected = torch.ops.score.relative_rows(*arguments)
    torch.testing.assert_close(ops_on_devices.relative_rows(*arguments), expected, rtol=2e-6, atol=2e-6)
    assert_equals_cpu(ops_on_devices, given)


@pytest.mark.parametrize("cu", [int32(0, 50, 20, 100), int32(-5, 7, 2_000_000_000, 60), int32(0, 0, 0, 0)], ids=str)
@pytest.mark.parametrize("num_frames", [0, 1, 25, 100])
def test_wrong_offsets_and_sizes_stay_inside(ops: Ops, cu: Tensor, num_frames: int) -> None:
    """AddressSanitizer watches."""
    tokens = torch.randn(100, 8)
    for per_frame in (int32(4, 4, 4), int32(0, -7, 2**31 - 1), int32(1, 1, 1)):
        for columns in (int32(2, 2, 2), int32(0, -3, 2**31 - 1), int32(3, 3, 100)):
            measures, moments = ops.relative_measures(tokens, cu, per_frame, columns, num_frames)
            ops.relative_rows(measures, moments, cu, per_frame, columns, None, 0, 100, torch.float32)


def test_no_tokens(ops: Ops) -> None:
    nothing = Batch(torch.randn(0, 8), int32(0, 0, 0), int32(4, 4), int32(2, 2), 0)
    measures, moments = ops.relative_measures(*nothing)
    assert measures.shape == (0, 13)
    torch.testing.assert_close(moments, torch.ops.score.relative_measures(*nothing)[1])
    assert ops.relative_rows(measures, moments, *nothing[1:4], None, 0, 0, torch.float32).shape == (0, 64)
