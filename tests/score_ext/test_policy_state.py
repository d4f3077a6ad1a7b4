"""policy_state: [LayerNorm(x) ; LayerNorm(dX) ; features], and what becomes of it where nearly nothing moves."""

from __future__ import annotations

import math

import pytest
import torch
from batches import LAYOUTS, TOKEN_DTYPES, WIDTHS, Layout, generator, int32, layouts, seeds, token_dtypes, widths
from hypothesis import given, settings
from hypothesis import strategies as st

import score_ext
from score_ext import reference

# Of the state's dtype: one unit in the last place, for values rounded from float32 that differ by some 1e-6.
ROUNDING = {torch.float32: 2e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def assert_state_close(actual: torch.Tensor, expected: torch.Tensor) -> None:
    tolerance = ROUNDING[actual.dtype]
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance, equal_nan=True)


@settings(max_examples=120, deadline=None)
@given(
    layouts(),
    widths,
    token_dtypes,
    token_dtypes,
    st.sampled_from([(True, True), (True, False), (False, True), (False, False)]),
    st.integers(0, 3),
    seeds,
    st.data(),
)
def test_equals_reference(
    layout: Layout,
    width: int,
    token_dtype: torch.dtype,
    dtype: torch.dtype,
    parts: tuple[bool, bool],
    num_features: int,
    seed: int,
    data: st.DataObject,
) -> None:
    if parts == (False, False) and num_features == 0:
        num_features = 1  # an empty state is refused
    features = torch.randn(layout.length, num_features, generator=generator(seed)) if num_features else None
    begin = data.draw(st.integers(0, layout.length))
    end = data.draw(st.integers(begin, layout.length))
    arguments = (
        layout.tokens(width, token_dtype, seed),
        layout.cu_seqlens,
        layout.tokens_per_frame,
        features,
        begin,
        end,
        dtype,
        *parts,
    )
    state = score_ext.policy_state(*arguments)
    assert state.shape == (end - begin, width * sum(parts) + num_features)
    assert_state_close(state, reference.policy_state(*arguments))


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
def test_every_width_against_float64(width: int, dtype: torch.dtype) -> None:
    layout = LAYOUTS["one"]
    tokens = layout.tokens(width, dtype) * 3 + 5
    packed = layout.cu_seqlens, layout.tokens_per_frame
    state = score_ext.policy_state(tokens, *packed, None, 0, layout.length, torch.float32)
    x = tokens.double()
    residual = torch.cat([torch.zeros(6, width, dtype=torch.float64), x[6:] - x[:-6]])
    expected = torch.cat([torch.nn.functional.layer_norm(part, (width,)) for part in (x, residual)], dim=1)
    assert_state_close(state, expected.float())


def nearly_static(dtype: torch.dtype, width: int = 64, frames: int = 8, tokens: int = 5) -> torch.Tensor:
    """A still picture of which one value in ten moves by one unit in the last place from frame to frame."""
    random = generator(3)
    frame = (torch.randn(tokens, width, generator=random) * 4).to(dtype)
    step = torch.finfo(dtype).eps * frame.float().abs()
    rows = [frame]
    for _ in range(frames - 1):
        moved = torch.rand(tokens, width, generator=random) < 0.1
        rows.append((rows[-1].float() + torch.where(moved, step, 0.0)).to(dtype))
    return torch.cat(rows)


@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
@pytest.mark.parametrize("epsilon", [1e-12, 1e-5])
def test_nearly_static_video(dtype: torch.dtype, epsilon: float) -> None:
    tokens = nearly_static(dtype)
    packed = int32(0, len(tokens)), int32(5)
    arguments = tokens, *packed, None, 0, len(tokens), torch.float32, False, True, epsilon
    state = score_ext.policy_state(*arguments)
    x = tokens.double()
    expected = torch.nn.functional.layer_norm(x[5:] - x[:-5], (64,), eps=epsilon)
    assert expected.abs().max() > (1e-9 if dtype == torch.float32 else 1e-3)  # there is something to normalise
    assert_state_close(state[5:], expected.float())
    assert_state_close(state, reference.policy_state(*arguments))


@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
def test_static_video_has_residual_zero(dtype: torch.dtype) -> None:
    tokens = Layout(((1, 4),)).tokens(33, dtype).repeat(6, 1)
    state = score_ext.policy_state(tokens, int32(0, 24), int32(4), None, 0, 24, torch.float32, use_token=False)
    assert (state == 0).all()


@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
def test_constant_tokens_normalise_to_zero(dtype: torch.dtype) -> None:
    tokens = torch.full((6, 48), 3.0, dtype=dtype)
    state = score_ext.policy_state(tokens, int32(0, 6), int32(2), None, 0, 6, torch.float32)
    assert (state == 0).all()


def test_outlier_channels() -> None:
    tokens = LAYOUTS["one"].tokens(256)
    tokens[:, 7] = 3000.0  # real vision towers have such channels
    tokens[:, 100] = -800.0
    layout = LAYOUTS["one"]
    state = score_ext.policy_state(
        tokens, layout.cu_seqlens, layout.tokens_per_frame, None, 0, layout.length, torch.float32, True, False
    )
    expected = torch.nn.functional.layer_norm(tokens.double(), (256,)).float()
    assert_state_close(state, expected)


def test_rounding_to_half_precision_is_to_nearest_even() -> None:
    """Through the features, which are only rounded: every sort of value, subnormals, ties and overflow among them."""
    random = generator(0)
    exponents = torch.randint(-30, 20, (4096, 1), generator=random)
    ties = torch.tensor([1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 2**-24 * 1.5, 2**-25, 2**-26])
    special = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 65504.0, 65519.0, 65520.0, 1e38, 1e-40])
    features = torch.cat([torch.randn(4096, 1, generator=random) * 2.0**exponents, torch.cat([ties, special])[:, None]])
    length = len(features)
    tokens = torch.zeros(length, 1)
    for dtype in TOKEN_DTYPES:
        state = score_ext.policy_state(
            tokens, int32(0, length), int32(1), features, 0, length, dtype, use_token=False, use_residual=False
        )
        expected = features.to(dtype)
        assert torch.equal(state.isnan(), expected.isnan())
        same_bits = torch.int32 if dtype == torch.float32 else torch.int16
        number = ~expected.isnan()
        assert torch.equal(state[number].view(same_bits), expected[number].view(same_bits))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_precision_value_is_read_exactly(dtype: torch.dtype) -> None:
    """All 65536 of them, as l2 surprise over a zero: |x| comes back unchanged where its square is a normal float."""
    values = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(dtype)
    tokens = torch.stack([torch.zeros_like(values), values], dim=1).reshape(-1, 1)
    read = score_ext.surprise(tokens, int32(0, len(tokens)), int32(1), "l2", 0.0)[1::2]
    wide = values.float()
    square_fits = (wide.abs() > 1e-18) & (wide.abs() < 1e18)
    assert torch.equal(read[square_fits], wide.abs()[square_fits])
    assert torch.equal(read.isnan(), wide.isnan())
    assert (read[wide.isinf()] == math.inf).all()
