"""Packing: from frames, from grids, several batches as one, to another device; one layout however it came about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from score_video.packed import PackedVideos, Selection, check_sizes, needs_question, offsets

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
