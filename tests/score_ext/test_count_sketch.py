"""count_sketch: sums of columns with signs, to the bit, and what they are for."""

from __future__ import annotations

import pytest
import torch
from batches import generator
from hypothesis import given, settings
from hypothesis import strategies as st

import score_ext
from score_ext import reference

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 70),
    st.integers(1, 300),
    st.integers(1, 140),
    st.sampled_from(DTYPES),
    st.integers(0, 9),
    st.sampled_from([None, torch.nan, torch.inf]),
)
def test_equals_the_reference(
    rows: int, token_width: int, width: int, dtype: torch.dtype, seed: int, special: float | None
) -> None:
    tokens = torch.randn(rows, token_width, generator=generator(seed)).to(dtype)
    if special is not None and rows:
        tokens[rows // 2, token_width // 2] = special
    found, wanted = score_ext.count_sketch(tokens, width), reference.count_sketch(tokens, width)
    assert found.shape == (rows, width)
    assert torch.equal(found.nan_to_num(77.0), wanted.nan_to_num(77.0))
    assert found[:, token_width:].eq(0).all()


def test_strides_do_not_matter() -> None:
    tokens = torch.randn(60, 90, generator=generator(0))
    for view in (tokens.t(), tokens[::3], tokens[:, ::2], tokens[:1].expand(7, -1)):
        assert torch.equal(score_ext.count_sketch(view, 16), score_ext.count_sketch(view.contiguous(), 16))


def test_products_are_those_of_the_tokens_on_average() -> None:
    """The mean error over many pairs is near 0, and each is about as large as of so many random columns."""
    rows = torch.nn.functional.normalize(torch.randn(400, 3584, generator=generator(1)), dim=1)
    sketch = score_ext.count_sketch(rows, 127)
    error = (sketch @ sketch.T - rows @ rows.T)[~torch.eye(400, dtype=torch.bool)]
    assert error.mean().abs() < 0.002
    assert 0.8 < error.std() * 127**0.5 < 1.2


def test_signs_are_even() -> None:
    signs = score_ext.count_sketch(torch.eye(8192), 8192).diagonal()
    assert signs.abs().eq(1).all()
    assert signs.mean().abs() < 0.04
    assert (signs[1:] * signs[:-1]).mean().abs() < 0.04


@pytest.mark.parametrize("width", [0, -3, 2**40])
def test_bad_widths_are_named(width: int) -> None:
    with pytest.raises(ValueError, match=rf"width must be 1 .. 2147483647, got {width}"):
        score_ext.count_sketch(torch.zeros(2, 3), width)


def test_bad_tokens_are_named() -> None:
    with pytest.raises(ValueError, match=r"tokens must be \[num_tokens, width\], got float32 \[3\]"):
        score_ext.count_sketch(torch.zeros(3), 2)
    with pytest.raises(ValueError, match="tokens must be at least 1 wide"):
        score_ext.count_sketch(torch.zeros(3, 0), 2)
