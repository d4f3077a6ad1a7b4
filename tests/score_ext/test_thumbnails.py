"""thumbnails: means of cells, of pixels of any dtype and strides."""

from __future__ import annotations

import pytest
import torch
from batches import generator
from hypothesis import given, settings
from hypothesis import strategies as st

import score_ext
from score_ext import reference

DTYPES = (torch.uint8, torch.float32, torch.float16, torch.bfloat16)
sizes = st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(1, 3), st.integers(1, 19), st.integers(1, 19))


def random_pixels(shape: tuple[int, ...], dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=generator(seed)).to(dtype)


def by_hand(pixels: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """The definition, cell by cell, in float64."""
    height, width = pixels.shape[3:]
    out = torch.empty(*pixels.shape[:2], rows, columns, dtype=torch.float64)
    for r in range(rows):
        for c in range(columns):
            tall = slice(r * height // rows, -(-(r + 1) * height // rows))
            wide = slice(c * width // columns, -(-(c + 1) * width // columns))
            out[:, :, r, c] = pixels[:, :, :, tall, wide].double().mean((2, 3, 4))
    return out.float()


@settings(max_examples=80, deadline=None)
@given(sizes, st.integers(1, 21), st.integers(1, 21), st.sampled_from(DTYPES), st.integers(0, 9))
def test_equals_the_definition_and_the_reference(
    shape: tuple[int, ...], rows: int, columns: int, dtype: torch.dtype, seed: int
) -> None:
    pixels = random_pixels(shape, dtype, seed)
    found = score_ext.thumbnails(pixels, rows, columns)
    torch.testing.assert_close(found, by_hand(pixels, rows, columns))
    if pixels.numel():  # torch's pooling takes no empty batches of some shapes
        torch.testing.assert_close(reference.thumbnails(pixels, rows, columns), found)


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(5)), st.sampled_from(DTYPES), st.integers(1, 3), st.booleans())
def test_strides_are_read_not_copied(order: list[int], dtype: torch.dtype, step: int, expand: bool) -> None:
    """Permuted, with steps, expanded: as the same pixels without gaps."""
    pixels = random_pixels((5, 6, 7, 8, 9), dtype).permute(order)[::step, :, ::step, 1:]
    if expand:
        pixels = pixels[:, :, :1].expand(-1, -1, 4, -1, -1)
    found = score_ext.thumbnails(pixels, 2, 3)
    assert torch.equal(found, score_ext.thumbnails(pixels.contiguous(), 2, 3))


def test_bytes_are_those_of_the_same_floats() -> None:
    """uint8 frames and a processor's float pixels choose alike: nothing is rounded on the way."""
    pixels = random_pixels((4, 3, 2, 28, 28), torch.uint8)
    assert torch.equal(score_ext.thumbnails(pixels, 4, 4), score_ext.thumbnails(pixels.float(), 4, 4))


def test_nan_stays_in_its_cell() -> None:
    pixels = torch.zeros(1, 1, 2, 4, 4)
    pixels[0, 0, 1, 3, 0] = torch.nan
    assert score_ext.thumbnails(pixels, 2, 2).isnan().tolist() == [[[[False, False], [True, False]]]]


@pytest.mark.parametrize(("name", "value"), [("rows", 0), ("rows", -3), ("columns", 0), ("columns", 2**40)])
def test_bad_sizes_are_named(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"{name} must be 1 .. 2147483647, got {value}"):
        score_ext.thumbnails(torch.zeros(1, 3, 1, 4, 4), **{"rows": 1, "columns": 1, name: value})


@pytest.mark.parametrize("shape", [(2, 3, 0, 4, 4), (2, 3, 1, 0, 4), (2, 3, 1, 4, 0)])
def test_pictures_of_nothing_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="pixels must have at least one frame of one pixel"):
        score_ext.thumbnails(torch.zeros(shape), 1, 1)
