"""Prompts with positions left out, against plain loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from score_video.mllm.prompt import IGNORED, Prompt, Shortening, read_prompt


@st.composite
def masks(draw: st.DrawFn) -> torch.Tensor:
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    cells = draw(st.lists(st.booleans(), min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(cells).view(rows, columns)


@given(masks(), st.integers(0, 2))
def test_shortening_moves_what_is_kept_to_the_right(kept: torch.Tensor, extra: int) -> None:
    rows, columns = kept.shape
    shape = (2,) * extra + (rows, columns)
    values = torch.arange(2**extra * rows * columns).view(shape)
    shortening = Shortening(kept)
    shorter = shortening(values, -7)
    assert shorter.shape == (*shape[:-1], max(kept.sum(1).tolist()))
    planes = values.view(2**extra, rows, columns), shorter.view(2**extra, rows, shortening.width)
    for plane, short in zip(*planes, strict=True):
        for row in range(rows):
            wanted = plane[row][kept[row]].tolist()
            assert short[row].tolist() == [-7] * (shortening.width - len(wanted)) + wanted


@given(masks())
def test_all_parts_of_a_prompt_are_shortened_alike(kept: torch.Tensor) -> None:
    ids = torch.arange(kept.numel()).view(kept.shape)
    prompt = Prompt(ids, torch.ones_like(ids), torch.stack([ids + 100, ids + 200]), ids + 300)
    shorter = prompt.shorten(Shortening(kept), 55)
    real = shorter.attention_mask.bool()
    assert torch.equal(real.sum(1), kept.sum(1))
    assert torch.equal(shorter.position_ids[:, real], shorter.input_ids[real] + torch.tensor([[100], [200]]))
    assert shorter.labels is not None
    assert torch.equal(shorter.labels[real], shorter.input_ids[real] + 300)
    assert (shorter.input_ids[~real] == 55).all() and (shorter.labels[~real] == IGNORED).all()


def test_text_positions_count_what_is_no_padding() -> None:
    ids = torch.zeros(2, 4, dtype=torch.long)
    prompt = read_prompt({"input_ids": ids, "attention_mask": torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]])})
    assert prompt.position_ids.tolist() == [[0, 0, 0, 1], [0, 1, 2, 0]]
    assert read_prompt({"input_ids": ids}).position_ids.tolist() == [[0, 1, 2, 3]] * 2


IDS = torch.zeros(2, 3, dtype=torch.long)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ({}, TypeError, r"inputs\['input_ids'\] must be a tensor \(return_tensors='pt'\), got NoneType"),
        ({"input_ids": [[1]]}, TypeError, "got list"),
        ({"input_ids": IDS[0]}, ValueError, r"must have the shape \[prompts, tokens\], got \[3\]"),
        ({"input_ids": IDS.float()}, TypeError, r"inputs\['input_ids'\] must hold integers, got torch.float32"),
        (
            {"input_ids": IDS, "attention_mask": IDS[:1]},
            ValueError,
            r"inputs\['attention_mask'\] must have the shape \[2, 3\] of input_ids, got \[1, 3\]",
        ),
        ({"input_ids": IDS, "attention_mask": IDS + 2}, ValueError, r"inputs\['attention_mask'\] must hold 0 and 1"),
        ({"input_ids": IDS, "labels": IDS[:, :2]}, ValueError, r"inputs\['labels'\] must have the shape"),
        ({"input_ids": IDS[:, :0]}, ValueError, r"must have the shape \[prompts, tokens\], got \[2, 0\]"),
    ],
)
def test_bad_prompts(inputs: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_prompt(inputs)
