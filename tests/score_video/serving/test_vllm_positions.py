"""Places that travel beside embeddings: exact in every dtype, and put right whatever the chunks. Without vLLM."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from score_video.serving.vllm_positions import grid_positions, place_rows, split_places, with_places

PLACEHOLDER = 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_places_come_back_to_the_bit(dtype: torch.dtype) -> None:
    embeddings = torch.randn(6, 5).to(dtype)
    positions = torch.tensor([[0, 1, 2], [257, 258, 70001], [65535, 3, 4], [2**20, 0, 0], [1, 1, 1], [32767, 32768, 9]])
    carried = with_places(embeddings, positions, torch.tensor([300]))
    assert carried.dtype == dtype
    rows, places = split_places(carried[2:5])
    assert torch.equal(rows, embeddings[2:5])
    assert torch.equal(places[:, :3], positions[2:5])
    assert places[:, 3].tolist() == [2, 3, 4]
    assert places[:, 4].tolist() == [300] * 3
    assert split_places(carried[3:4])[1].tolist() == [[*positions[3].tolist(), 3, 300]]


def test_no_rows() -> None:
    rows, places = split_places(
        with_places(torch.empty(0, 5, dtype=torch.bfloat16), torch.empty(0, 3, dtype=torch.int64))
    )
    assert rows.shape == (0, 5)
    assert places.shape == (0, 5)


def test_grid_positions() -> None:
    assert grid_positions(2, 1, 2).tolist() == [[0, 0, 0], [0, 0, 1], [1, 0, 0], [1, 0, 1]]
    assert grid_positions(4, 1, 1, 0.5)[:, 0].tolist() == [0, 0, 1, 1]  # rounded down
    assert grid_positions(3, 1, 1, 12.5)[:, 0].tolist() == [0, 12, 25]


def prompt_of(items: list[tuple[int, int, int]]) -> tuple[list[int], Tensor, list[Tensor], Tensor]:
    """Items: text before it, rows, lead. The prompt, positions before, each item's places, positions wanted."""
    prompt: list[int] = []
    before, wanted, places = [], [], []
    next_position = 0
    for number, (text, rows, lead) in enumerate(items):
        numbers = torch.arange(next_position, next_position + text).expand(3, -1)
        first = next_position + text
        relative = torch.stack([torch.arange(rows) * 3, torch.arange(rows) % 2, torch.arange(rows) // 2], dim=1)
        next_position = first + 50 + number
        prompt += [1] * text + [1] * lead + [PLACEHOLDER] * (rows - lead)
        before += [numbers, torch.zeros(3, rows, dtype=torch.int64)]
        wanted += [numbers, first + relative.T]
        carried = with_places(torch.empty(rows, 0), relative, lead)
        places.append(split_places(carried)[1])
    prompt += [1] * 3
    tail = torch.arange(next_position, next_position + 3).expand(3, -1)
    return prompt, torch.cat([*before, tail], 1), places, torch.cat([*wanted, tail], 1)


items = st.tuples(st.integers(1, 4), st.integers(2, 9), st.integers(0, 1)).filter(lambda item: item[2] < item[1])


@settings(max_examples=60, deadline=None)
@given(st.lists(items, min_size=1, max_size=4), st.lists(st.integers(0, 60), max_size=5))
def test_any_chunks_put_every_row_right(sizes: list[tuple[int, int, int]], cuts: list[int]) -> None:
    prompt, positions, places, wanted = prompt_of(sizes)
    starts = [sum(text + rows for text, rows, _ in sizes[:i]) + sizes[i][0] for i in range(len(sizes))]
    borders = sorted({0, len(prompt), *(cut for cut in cuts if cut < len(prompt))})
    for begin, end in itertools.pairwise(borders):
        pieces = [
            item[max(0, begin - start) : end - start]
            for start, item in zip(starts, places, strict=True)
            if start < end and start + len(item) > begin
        ]
        positions = place_rows(positions, prompt, pieces, begin, {PLACEHOLDER})
    assert torch.equal(positions, wanted)
    # once more from the beginning, as after a preemption
    assert torch.equal(place_rows(positions, prompt, places, 0, {PLACEHOLDER}), wanted)


def test_an_item_at_the_beginning() -> None:
    places = split_places(with_places(torch.empty(2, 0), torch.tensor([[0, 0, 0], [0, 0, 1]])))[1]
    positions = place_rows(
        torch.zeros(3, 3, dtype=torch.int64), [PLACEHOLDER, PLACEHOLDER, 1], [places], 0, {PLACEHOLDER}
    )
    assert positions[:, :2].tolist() == [[0, 0], [0, 0], [0, 1]]
