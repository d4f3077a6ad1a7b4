"""Packing: from frames, from grids, several batches as one, to another device; one layout however it came about."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import fields, replace

import pytest
import torch
from helpers.waits import Waits
from hypothesis import given, settings
from hypothesis import strategies as st

from score_video import Compressor, pretrained_policy
from score_video.packed import SEGMENT, PackedVideos, Selection, check_sizes, needs_question, offsets

GRIDS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(1, 3)), min_size=1, max_size=5)


def frames_of(grids: Sequence[tuple[int, int, int]], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*grid, 2, generator=generator) for grid in grids]


def same(a: PackedVideos, b: PackedVideos) -> bool:
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(PackedVideos)]
    return all(x.dtype == y.dtype and torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)


@given(GRIDS)
def test_grids_are_frames(grids: list[tuple[int, int, int]]) -> None:
    videos = frames_of(grids)
    packed = PackedVideos.from_frames(videos)
    assert packed.lengths.tolist() == [video[..., 0].numel() for video in videos]
    assert packed.tokens_per_frame.tolist() == [rows * columns for _, rows, columns in grids]
    assert packed.columns.tolist() == [columns for _, _, columns in grids]
    assert same(packed, PackedVideos.from_grids(torch.cat([video.reshape(-1, 2) for video in videos]), grids))
    if all(rows for _, rows, _ in grids):
        check_sizes(packed)


@given(GRIDS, GRIDS)
def test_several_batches_as_one(first: list[tuple[int, int, int]], second: list[tuple[int, int, int]]) -> None:
    a, b = frames_of(first), frames_of(second, seed=1)
    both = PackedVideos.cat([PackedVideos.from_frames(a), PackedVideos.from_frames(b)])
    assert same(both, PackedVideos.from_frames([*a, *b]))
    assert same(PackedVideos.cat([both]), both)
    assert torch.equal(offsets(both.lengths), both.cu_seqlens) and offsets(both.lengths).dtype == torch.int32


@pytest.mark.parametrize("grids", [[], [(1, 1, 1)], [(2, 2, 2), (1, 1, 1)]])
def test_grids_of_other_tokens(grids: list[tuple[int, int, int]]) -> None:
    with pytest.raises(ValueError, match=r"^grids must be of the 8 tokens, got \d of \d$"):
        PackedVideos.from_grids(torch.zeros(8, 2), grids)


def test_nothing_to_put_together() -> None:
    with pytest.raises(ValueError, match="batches must not be empty"):
        PackedVideos.cat([])


def test_to_another_device() -> None:
    """The other device is torch's "meta": what it cannot show are values."""
    packed = PackedVideos.from_frames(frames_of([(2, 2, 2), (1, 1, 3)]))
    assert packed.to("cpu") is packed and packed.to(torch.device("cpu")) is packed
    there = packed.to("meta")
    for field in fields(PackedVideos):
        value, before = getattr(there, field.name), getattr(packed, field.name)
        if isinstance(before, torch.Tensor):
            assert value.device.type == "meta" and (value.shape, value.dtype) == (before.shape, before.dtype)
        else:
            assert value == before
    selection = Selection(torch.tensor([1, 2]), torch.tensor([1, 1], dtype=torch.int32)).to("meta")
    assert selection.index.device.type == selection.keep.device.type == "meta"


def test_a_copy_to_the_cpu_is_there_when_it_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a GPU, one that does not block could be read too early."""
    asked = []
    real = torch.Tensor.to

    def to(tensor: torch.Tensor, device: object, non_blocking: bool = False) -> torch.Tensor:
        asked.append((torch.device(str(device)).type, non_blocking))
        return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else real(tensor, str(device))

    monkeypatch.setattr(torch.Tensor, "to", to)
    packed = PackedVideos.from_frames([torch.zeros(1, 1, 1, 2)])
    asked.clear()
    packed.to("meta").to("cpu")
    assert asked == [("meta", True)] * 4 + [("cpu", False)] * 4


def test_who_asks_for_the_question() -> None:
    class Asks:
        needs_question = True

    assert needs_question(Asks()) and not needs_question(object())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(1, 3), st.integers(1, 3)), min_size=1, max_size=5))
def test_segments_cut_long_videos_as_equally_as_can_be(grids: list[tuple[int, int, int]]) -> None:
    videos = PackedVideos.from_grids(torch.arange(sum(t * h * w for t, h, w in grids))[:, None].float(), grids)
    segments = videos.segments
    if all(t <= SEGMENT for t, _, _ in grids):
        assert segments is videos
    found = zip(segments.lengths.tolist(), segments.tokens_per_frame.tolist(), segments.columns.tolist(), strict=True)
    expected = []
    for frames, rows, columns in grids:
        parts = -(-frames // SEGMENT)
        ends = [frames * number // max(1, parts) for number in range(parts + 1)]
        expected += [((b - a) * rows * columns, rows * columns, columns) for a, b in itertools.pairwise(ends)]
    assert [one for one in found if one[0]] == [one for one in expected if one[0]]
    assert segments.tokens is videos.tokens and int(segments.cu_seqlens[-1]) == len(videos.tokens)
    assert all(length <= SEGMENT * per_frame for length, per_frame, _ in expected)


def test_segments_where_the_host_cannot_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU there may be empty ones behind those that there are: what is computed by them is the same."""
    grids = [(130, 2, 2), (0, 1, 1), (64, 1, 3), (65, 2, 1), (3, 2, 2)]
    torch.manual_seed(0)
    videos = PackedVideos.from_grids(torch.randn(sum(t * h * w for t, h, w in grids), 8), grids)
    here = videos.segments
    policy = pretrained_policy()
    logits, white = policy(videos), videos.whitened
    monkeypatch.setattr("score_video.packed._on_host", lambda of: False)
    there = replace(videos)
    with Waits() as waits:
        segments = there.segments
    assert not waits.seen
    assert len(segments.cu_seqlens) == 262 // SEGMENT + len(grids) + 1
    assert [one for one in segments.lengths.tolist() if one] == here.lengths.tolist()
    assert torch.equal(policy(there), logits) and torch.equal(there.whitened, white)


def test_a_long_video_is_told_by_its_segments() -> None:
    """As so many videos would be, but that they share what is kept."""
    torch.manual_seed(0)
    policy, long = pretrained_policy(), torch.randn(150, 2, 3, 12)
    videos = PackedVideos.from_frames([long])
    parts = PackedVideos.from_frames([long[:50], long[50:100], long[100:]])
    assert torch.equal(policy(videos), policy(parts)) and torch.equal(videos.whitened, parts.whitened)
    assert Compressor(policy).select(videos).keep.tolist() == [90]
