"""divprune beside the same traversal in torch, eager and compiled, and beside the default policy and its selection;
under pytest-benchmark, one thread, bfloat16.

Part of `make bench`. Half of the places of each video stand still but for small noise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import score_ext
from bench.test_cpu import COMPILE_MODES, compiled, int32
from bench.test_cpu import one_thread as one_thread
from bench.test_cpu import timed as timed
from score_video import Compressor, PackedVideos

SIZES = {"1,296 x 384": (4, 324, 384), "8,192 x 512": (32, 256, 512)}
"""Frames, tokens in each, width."""


@pytest.fixture(scope="module", params=SIZES)
def size(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def video(size: str) -> Tensor:
    """bfloat16 [L, D]."""
    frames, per_frame, width = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    still = torch.randn(per_frame, width, generator=generator)
    tokens = still + 0.05 * torch.randn(frames, per_frame, width, generator=generator)
    tokens[:, ::2] += torch.randn(frames, per_frame // 2, width, generator=generator)
    return tokens.flatten(0, 1).to(torch.bfloat16)


def torch_step(units: Tensor, nearest: Tensor, latest: Tensor) -> tuple[Tensor, Tensor]:
    """Distances to the nearest taken one with one more taken, and the next to be taken."""
    nearest = torch.minimum(nearest, 1 - units @ units.index_select(0, latest[None])[0])
    nearest = nearest.index_fill(0, latest[None], -torch.inf)
    return nearest, nearest.argmax()


def torch_divprune(tokens: Tensor, keep: int, step: Callable[..., tuple[Tensor, Tensor]]) -> Tensor:
    units = torch.nn.functional.normalize(tokens.float(), dim=1)
    latest = (units @ units.mean(0)).argmin()
    nearest = torch.full((len(units),), torch.inf)
    taken = [latest]
    for _ in range(keep - 1):
        nearest, latest = step(units, nearest, latest)
        taken.append(latest)
    return torch.stack(taken).sort().values


def budget(tokens: Tensor) -> int:
    return len(tokens) // 10


def ours(tokens: Tensor) -> Tensor:
    keep = budget(tokens)
    return score_ext.divprune(tokens, int32(0, len(tokens)), int32(keep), keep)


def check(tokens: Tensor) -> Callable[[Tensor], None]:
    """The same rows but for one in a hundred: once a distance has been rounded to the other side, others follow."""
    expected = ours(tokens)

    def compare(output: Tensor) -> None:
        assert output.shape == expected.shape
        assert torch.isin(output, expected).float().mean() > 0.99

    return compare


def test_divprune_ours(timed: Callable[..., None], video: Tensor, size: str) -> None:
    timed(f"divprune {size}", ours, video, rounds=5)


def test_divprune_default_policy(timed: Callable[..., None], video: Tensor, size: str) -> None:
    """What is chosen in its place by default: logits, and the selection diverse by windows."""
    frames, per_frame, _ = SIZES[size]
    compressor, videos = Compressor(), PackedVideos.from_grids(video, [(frames, per_frame // 2, 2)])

    def choose() -> Tensor:
        fresh = replace(videos)  # without what it keeps of the time before
        return compressor.select(fresh, keep=[budget(video)]).index

    timed(f"divprune {size}", choose, rounds=5)


def test_divprune_eager(timed: Callable[..., None], video: Tensor, size: str) -> None:
    timed(f"divprune {size}", torch_divprune, video, budget(video), torch_step, rounds=3, check=check(video))


@pytest.mark.parametrize("mode", COMPILE_MODES)
def test_divprune_compile(timed: Callable[..., None], video: Tensor, size: str, mode: str) -> None:
    step = compiled(torch_step, mode)
    timed(f"divprune {size}", torch_divprune, video, budget(video), step, rounds=3, check=check(video))
