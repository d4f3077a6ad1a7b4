"""The state "relative" and the logits on it, at a size that stays in the cache and one that does not."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import score_ext
from bench.test_cpu import COMPILE_MODES, HIDDEN, compiled, int32, one_thread, timed  # noqa: F401  (fixtures)
from score_ext._relative_reference import video_state

RELATIVE_COLUMNS = 64  # 43 and the position's 21
SIZES = {
    "float32, 8192 x 512": (32, 16, 16, 512, torch.float32),
    "bfloat16, 40000 x 3584": (64, 25, 25, 3584, torch.bfloat16),
}


@pytest.fixture(scope="module", params=SIZES)
def video(request: pytest.FixtureRequest) -> tuple[str, Tensor]:
    """The size in words, and a still picture with noise, [T, R, C, D]."""
    frames, rows, columns, width, dtype = SIZES[request.param]
    generator = torch.Generator().manual_seed(0)
    still = torch.randn(1, rows, columns, width, generator=generator)
    moving = torch.randn(frames, rows, columns, width, generator=generator)
    return request.param, (still + 0.3 * moving).to(dtype)


def batch(video: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, int]:
    frames, rows, columns, width = video.shape
    sizes = int32(0, frames * rows * columns), int32(rows * columns), int32(columns), frames
    return video.view(-1, width), *sizes


def torch_state(video: Tensor) -> Tensor:
    """The reference's formulas in float32."""
    return video_state(video.float()).flatten(0, 2)


def check_state(video: Tensor) -> Callable[[Tensor], None]:
    expected = score_ext.relative_state(*batch(video))
    return lambda output: torch.testing.assert_close(output, expected, rtol=5e-3, atol=5e-3)


def test_copy(timed: Callable[..., None], video: tuple[str, Tensor]) -> None:  # noqa: F811
    name, tokens = video
    timed(f"copy {name}", torch.empty_like(tokens).copy_, tokens)


def test_surprise_ours(timed: Callable[..., None], video: tuple[str, Tensor]) -> None:  # noqa: F811
    name, tokens = video
    timed(f"surprise {name}", score_ext.surprise, *batch(tokens)[:3])


def test_relative_state_ours(timed: Callable[..., None], video: tuple[str, Tensor]) -> None:  # noqa: F811
    name, tokens = video
    timed(f"relative_state {name}", score_ext.relative_state, *batch(tokens))


def test_relative_logits_ours(timed: Callable[..., None], video: tuple[str, Tensor]) -> None:  # noqa: F811
    """The network of the policy that comes with the package: 64-64-64-1, float32."""
    name, tokens = video
    generator = torch.Generator().manual_seed(0)
    shapes = [(HIDDEN, RELATIVE_COLUMNS), (HIDDEN, HIDDEN), (1, HIDDEN)]
    layers = [(torch.randn(*shape, generator=generator) / 8, torch.zeros(shape[0])) for shape in shapes]
    timed(f"relative_logits {name}", score_ext.relative_logits, *batch(tokens), layers)


def small(video: tuple[str, Tensor]) -> tuple[str, Tensor]:
    if video[1].numel() > 1 << 25:
        pytest.skip("some ten copies of the tokens in float32, and minutes")
    return video


def test_relative_state_eager(timed: Callable[..., None], video: tuple[str, Tensor]) -> None:  # noqa: F811
    name, tokens = small(video)
    timed(f"relative_state {name}", torch_state, tokens, rounds=5, check=check_state(tokens))


@pytest.mark.parametrize("mode", COMPILE_MODES[:1])
def test_relative_state_compile(timed: Callable[..., None], video: tuple[str, Tensor], mode: str) -> None:  # noqa: F811
    name, tokens = small(video)
    timed(f"relative_state {name}", compiled(torch_state, mode), tokens, rounds=5, check=check_state(tokens))


@pytest.mark.parametrize("threads", [1, 2])
def test_threads_relative_state(timed: Callable[..., None], video: tuple[str, Tensor], threads: int) -> None:  # noqa: F811
    name, tokens = video
    torch.set_num_threads(threads)
    timed(f"threads {name}", score_ext.relative_state, *batch(tokens))
