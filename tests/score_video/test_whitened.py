"""Whitened tokens: against the definition by eigenvectors, and what a video must not change of another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import score_ext
from score_video import Compressor
from score_video.packed import SEGMENT, PackedVideos, offsets
from score_video.whitened import _TILE, RIDGE, WIDTH, _white, _white_by_tiles, whitened


def by_definition(tokens: Tensor) -> Tensor:
    """float64 [L, D + 1] of one video, by eigenvectors."""
    rows = tokens.double() - tokens.double().mean(0)
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    white = rows @ vectors / (values + RIDGE * values.mean()).sqrt()
    return torch.cat([white, torch.full_like(white[:, :1], rows.shape[1] ** 0.5)], 1)


def ends(*lengths: int) -> Tensor:
    return offsets(torch.tensor(lengths, dtype=torch.int32))


def assert_same_products(found: Tensor, wanted: Tensor) -> None:
    """Equal up to a rotation, which no cosine sees."""
    found = found.double()
    scale = (wanted @ wanted.T).abs().amax()
    torch.testing.assert_close(found @ found.T / scale, wanted @ wanted.T / scale, rtol=0, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.lists(st.integers(0, 40), min_size=1, max_size=4),
    st.integers(1, WIDTH),
    st.sampled_from([1e-30, 1.0, 1e30]),
)
def test_is_what_it_is_defined_as(seed: int, lengths: list[int], width: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(sum(lengths), width, generator=generator) @ torch.randn(width, width, generator=generator)
    tokens += 3 * torch.randn(width, generator=generator)
    found = whitened(tokens * scale, ends(*lengths))
    assert found.shape == (len(tokens), width + 1)
    parts = zip(torch.split(tokens, lengths), torch.split(found, lengths), strict=True)
    for video, of_video in parts:
        if len(video) > 1 and width > 1:  # of one token nothing is left
            assert_same_products(of_video, by_definition(video))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_wide_tokens_are_narrowed(dtype: torch.dtype) -> None:
    """What a video uses seldom stays far from the rest, whatever else is large."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(600, 1000, generator=generator)
    tokens[:, 3] *= 200  # a channel that is far larger than all others
    rare = torch.randn(1000, generator=generator)
    tokens[:12] = 0.3 * tokens[:12] + 2 * rare
    tokens = tokens.to(dtype)
    white = torch.nn.functional.normalize(whitened(tokens, ends(600)), dim=1)
    assert white.shape == (600, WIDTH + 1)
    products = white @ white.T
    assert products[:12, :12].min() > products[:12, 12:].max()  # the rare ones are alike
    raw = torch.nn.functional.normalize(tokens.float(), dim=1)
    assert not (raw @ raw.T)[:12, :12].min() > (raw @ raw.T)[:12, 12:].max()


def test_a_video_is_whitened_by_its_own() -> None:
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(length, 200, generator=generator) for length in (50, 0, 70)]
    together = whitened(torch.cat(parts), ends(50, 0, 70))
    for part, own in zip(parts, torch.split(together, [50, 0, 70]), strict=True):
        torch.testing.assert_close(whitened(part, ends(len(part))), own)
    parts[0][7, 3] = torch.nan
    broken = whitened(torch.cat(parts), ends(50, 0, 70))
    assert broken[:50, :WIDTH].isnan().all()
    assert torch.equal(broken[50:], together[50:])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 3 * _TILE), min_size=1, max_size=5), st.integers(1, 30))
def test_as_where_lengths_are_on_a_device(seed: int, lengths: list[int], width: int) -> None:
    """There it goes by tiles; and NaN in one video does not matter to another."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(sum(lengths), width, generator=generator) @ torch.randn(width, width, generator=generator) + 3
    rows = torch.nn.functional.pad(rows, (0, 1))
    found = _white_by_tiles(rows, ends(*lengths))
    wanted = torch.cat([_white(own) for own in torch.split(rows, lengths)])
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    assert torch.equal(_white_by_tiles(rows, ends(*lengths)), found)
    longest = max(range(len(lengths)), key=lengths.__getitem__)
    if lengths[longest]:
        rows[sum(lengths[: longest + 1]) - 1, 0] = torch.nan
        parts = torch.split(_white_by_tiles(rows, ends(*lengths)), lengths)
        for video, (part, own) in enumerate(zip(parts, torch.split(found, lengths), strict=True)):
            assert part.isnan().all() if video == longest else torch.equal(part, own)


def test_what_does_not_vary_is_alike() -> None:
    for tokens in (torch.full((60, 300), 0.1), torch.zeros(60, 300), torch.randn(1, 300), torch.randn(60, 1)):
        white = torch.nn.functional.normalize(whitened(tokens, ends(len(tokens))), dim=1)
        assert white.isfinite().all()
        if tokens.shape[1] > 1:
            assert (white @ white.T).min() > 0.999


def test_divprune_on_whitened_tokens_keeps_what_is_rare() -> None:
    generator = torch.Generator().manual_seed(3)
    common = torch.randn(4, 64, generator=generator)
    tokens = common[torch.arange(400) % 4] + 0.3 * torch.randn(400, 64, generator=generator)
    tokens[:, :2] += 30  # what all share: by cosine all are close
    rare = torch.randn(64, generator=generator)
    tokens[[50, 333]] += 0.4 * rare
    video = PackedVideos.from_frames([tokens.view(4, 10, 10, 64)])
    kept = {name: Compressor(name, 0.02).select(video).index.tolist() for name in ("divprune", "divprune-whitened")}
    assert set(kept["divprune-whitened"]) & {50, 333}
    assert len(kept["divprune-whitened"]) == len(kept["divprune"]) == 8


def test_divprune_on_whitened_tokens_of_a_long_video() -> None:
    """It is whitened by segments, as for policies, and chosen from as a whole."""
    tokens = torch.randn(3 * SEGMENT * 4, 20, generator=torch.Generator().manual_seed(5))
    tokens[: len(tokens) // 2] *= 5  # of another spread, so that segments matter
    video = PackedVideos.from_frames([tokens.view(3 * SEGMENT, 2, 2, 20)])
    keep = torch.tensor([40], dtype=torch.int32)
    segments = torch.split(tokens, SEGMENT * 4)
    white = torch.cat([whitened(own, ends(len(own))) for own in segments])
    wanted = score_ext.divprune(white, video.cu_seqlens, keep)
    assert torch.equal(Compressor("divprune-whitened").select(video, keep=[40]).index, wanted)
    assert not torch.equal(score_ext.divprune(whitened(tokens, ends(len(tokens))), video.cu_seqlens, keep), wanted)


def test_autocast_does_not_change_it() -> None:
    for width in (40, 300):
        tokens = torch.randn(70, width, generator=torch.Generator().manual_seed(4))
        with torch.autocast("cpu", torch.bfloat16):
            found = whitened(tokens, ends(70))
        assert torch.equal(found, whitened(tokens, ends(70)))


def test_no_videos() -> None:
    assert whitened(torch.randn(0, 300), ends()).shape == (0, WIDTH + 1)
