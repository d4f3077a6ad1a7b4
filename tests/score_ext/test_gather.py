"""gather and kept_offsets: rows of a tensor of any dtype and shape."""

from __future__ import annotations

import pytest
import torch
from batches import Layout, generator, int32, int64, layouts, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

import score_ext

DTYPES = (
    torch.float32,
    torch.float64,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.int8,
    torch.uint8,
    torch.int16,
    torch.uint16,
    torch.int32,
    torch.int64,
    torch.bool,
    torch.complex64,
    torch.complex128,
)
# Rows of 1 byte to more than a vector register, and rows of none.
TRAILING = ((), (1,), (3,), (5, 7), (0,), (4, 0, 2), (2, 1, 3), (129,))


def rows_of_bytes(length: int, trailing: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """Any bit patterns at all, NaNs among them."""
    size = torch.empty((length, *trailing), dtype=dtype)
    if dtype == torch.bool:
        return torch.randint(0, 2, size.shape, generator=generator(0)).bool()
    count = size.numel() * size.element_size()
    return torch.randint(0, 256, (count,), dtype=torch.uint8, generator=generator(0)).view(dtype).view(size.shape)


def as_bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.contiguous().flatten().view(torch.uint8).tolist()) if tensor.numel() else b""


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("trailing", TRAILING)
def test_copies_rows_to_the_bit(dtype: torch.dtype, trailing: tuple[int, ...]) -> None:
    tokens = rows_of_bytes(13, trailing, dtype)
    index = int64(12, 0, 0, 5, 12, 7)
    kept = score_ext.gather(tokens, index)
    assert kept.dtype == dtype
    assert kept.shape == (6, *trailing)
    for row, source in zip(kept, index.tolist(), strict=True):
        assert as_bytes(row) == as_bytes(tokens[source])


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 3000), st.integers(1, 40), seeds)
def test_equals_indexing(length: int, count: int, width: int, seed: int) -> None:
    tokens = torch.randn(length, width, generator=generator(seed))
    index = torch.randint(0, length, (count,), generator=generator(seed))
    assert torch.equal(score_ext.gather(tokens, index), tokens[index])


def test_no_rows() -> None:
    assert score_ext.gather(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).shape == (0, 3)
    assert score_ext.gather(torch.zeros(4, 3), torch.zeros(0, dtype=torch.int64)).shape == (0, 3)


def test_conjugate_and_negative_views_are_resolved() -> None:
    tokens = torch.randn(5, 2, dtype=torch.complex64)
    index = int64(3, 1)
    assert torch.equal(score_ext.gather(tokens.conj(), index), tokens.conj()[index])
    assert torch.equal(score_ext.gather(tokens.conj().imag, index), tokens.conj().imag[index])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.complex64])
@pytest.mark.parametrize("trailing", [(), (3,), (2, 2), (0,)])
def test_gradient_adds_what_was_gathered_twice(dtype: torch.dtype, trailing: tuple[int, ...]) -> None:
    index = int64(4, 1, 4, 4, 0)
    grad = torch.randint(-8, 8, (5, *trailing), generator=generator(1)).to(dtype)  # sums of these are exact
    gradients = []
    for gather in (score_ext.gather, lambda tokens, rows: tokens[rows]):
        tokens = torch.zeros(6, *trailing, dtype=dtype, requires_grad=True)
        gradients.append(torch.autograd.grad(gather(tokens, index), tokens, grad)[0])
    assert torch.equal(*gradients)


def test_second_derivative() -> None:
    tokens = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: score_ext.gather(x, int64(1, 1, 4)), (tokens,))
    assert torch.autograd.gradgradcheck(lambda x: score_ext.gather(x, int64(1, 1, 4)).square(), (tokens,))


@settings(max_examples=30, deadline=None)
@given(layouts(), seeds)
def test_kept_offsets_are_the_running_sum(layout: Layout, seed: int) -> None:
    keep, total_keep = layout.keep(seed)
    offsets = torch.ops.score.kept_offsets(layout.cu_seqlens, keep)
    assert offsets.dtype == torch.int32
    assert offsets.tolist() == [0, *keep.cumsum(0).tolist()]
    assert offsets[-1] == total_keep


def test_kept_offsets_of_one_video() -> None:
    assert torch.ops.score.kept_offsets(int32(0, 9), int32(4)).tolist() == [0, 4]
