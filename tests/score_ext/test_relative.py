"""relative_state and relative_logits against their definition in float64, on tokens that are hard on float32."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from batches import TOKEN_DTYPES, WIDTHS, generator, int32, seeds, token_dtypes, widths
from cases import RELATIVE_COLUMNS, linear_layers
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import score_ext
from score_ext import reference

Grid = tuple[int, int, int]  # frames, rows, columns
GRIDS: dict[str, tuple[Grid, ...]] = {
    "one": ((6, 4, 5),),
    "one_frame": ((1, 3, 4),),
    "one_token_a_frame": ((9, 1, 1),),
    "one_token": ((1, 1, 1),),
    "one_row": ((6, 1, 7),),
    "one_column": ((6, 7, 1),),
    "ragged": ((5, 2, 3), (0, 2, 2), (1, 1, 1), (7, 3, 2), (0, 0, 0), (2, 1, 6), (6, 5, 1)),
    "only_empty": ((0, 2, 2), (0, 1, 1)),
    "long": ((70, 2, 2), (33, 1, 3)),
    "large_frame": ((6, 31, 30),),  # one that is taken in slices of a few columns
}


def sizes(grids: tuple[Grid, ...]) -> tuple[Tensor, Tensor, Tensor, int]:
    """cu_seqlens, tokens_per_frame, columns, num_frames."""
    lengths = [frames * rows * columns for frames, rows, columns in grids]
    per_frame = [rows * columns for _, rows, columns in grids]
    frames = sum(frames for frames, rows, columns in grids if rows * columns)
    ends = list(itertools.accumulate(lengths, initial=0))
    return int32(*ends), int32(*per_frame), int32(*(columns for _, _, columns in grids)), frames


def tokens_of(grids: tuple[Grid, ...], width: int, noise: float = 0.5, seed: int = 0) -> Tensor:
    """Videos of a still picture and noise."""
    random = generator(seed)
    videos = []
    for frames, rows, columns in grids:
        picture = torch.randn(1, rows * columns, width, generator=random)
        moving = torch.randn(frames, rows * columns, width, generator=random)
        videos.append((picture + noise * moving).reshape(-1, width))
    return torch.cat(videos)


def state_and_reference(tokens: Tensor, grids: tuple[Grid, ...]) -> tuple[Tensor, Tensor]:
    cu, per_frame, columns, frames = sizes(grids)
    found = score_ext.relative_state(tokens, cu, per_frame, columns, frames)
    assert found.dtype == torch.float32
    return found, reference.relative_state(tokens, cu, per_frame, columns, frames)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 2e-3) -> None:
    """Scores divide rounding errors of cosines, 1e-7 and more, by deviations from 1e-3 up."""
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
@pytest.mark.parametrize("name", GRIDS)
def test_equals_reference(name: str, dtype: torch.dtype) -> None:
    assert_close(*state_and_reference(tokens_of(GRIDS[name], 40).to(dtype), GRIDS[name]))


@pytest.mark.parametrize("width", [*WIDTHS[1:], 3584])
def test_every_width(width: int) -> None:
    grids = ((3, 2, 3), (6, 2, 2))
    assert_close(*state_and_reference(tokens_of(grids, width), grids))


def test_tokens_of_one_number() -> None:
    """Directions are 1 and -1: where they cancel, e is all there is to divide their rounding errors by."""
    grids = ((3, 2, 3), (6, 2, 2))
    assert_close(*state_and_reference(tokens_of(grids, 1), grids), 0.1)


wide_enough = widths.filter(lambda width: width > 4)
grids_of_any_size = st.lists(
    st.tuples(st.integers(0, 7), st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=4
).map(tuple)


@settings(max_examples=80, deadline=None)
@given(
    grids_of_any_size, widths.filter(lambda width: width > 4), token_dtypes, st.sampled_from([1.0, 0.1, 1e-2]), seeds
)
def test_equals_reference_on_any_batch(
    grids: tuple[Grid, ...], width: int, dtype: torch.dtype, noise: float, seed: int
) -> None:
    assert_close(*state_and_reference(tokens_of(grids, width, noise, seed).to(dtype), grids), 5e-3)


@pytest.mark.parametrize("noise", [1e-3, 1e-6, 0.0])
def test_nearly_still(noise: float) -> None:
    grids = ((9, 5, 5),)
    assert_close(*state_and_reference(tokens_of(grids, 100, noise), grids), 2e-2)


@pytest.mark.parametrize("offset", [50.0, 1000.0])
def test_a_large_common_component(offset: float) -> None:
    """Products before centring would be 1 to 7 digits, and the differences that count lie behind them."""
    grids = ((9, 5, 5),)
    assert_close(*state_and_reference(tokens_of(grids, 100) + offset, grids), 2e-2 if offset > 100 else 2e-3)


@pytest.mark.parametrize("scale", [3e37, 1e30, 1e-30, 1e-38, 1e-41])
def test_huge_and_tiny_norms(scale: float) -> None:
    grids = GRIDS["ragged"]
    assert_close(*state_and_reference(tokens_of(grids, 30) * scale, grids))


def test_one_token_that_outweighs_all_others() -> None:
    grids = ((5, 3, 3),)
    tokens = tokens_of(grids, 50)
    tokens[22] *= 1e4
    assert_close(*state_and_reference(tokens, grids))


def test_zero_tokens() -> None:
    grids = GRIDS["ragged"]
    tokens = tokens_of(grids, 17)
    tokens[::5] = 0
    assert_close(*state_and_reference(tokens, grids))
    assert_close(*state_and_reference(tokens * 0, grids))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_no_number_stays_in_its_video(bad: float) -> None:
    grids = ((3, 2, 2), (4, 2, 2), (3, 2, 2))
    tokens = tokens_of(grids, 8)
    clean = score_ext.relative_state(tokens, *sizes(grids))
    tokens[13, 3] = bad
    found = score_ext.relative_state(tokens, *sizes(grids))
    assert torch.equal(found[:12], clean[:12]) and torch.equal(found[28:], clean[28:])
    assert found[12:28].isnan().any(dim=1).all()


def test_the_same_bits_alone_in_a_batch_and_with_any_threads() -> None:
    grids = ((40, 9, 11), (3, 2, 2), (0, 1, 1), (25, 3, 7))
    tokens = tokens_of(grids, 150)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(score_ext.relative_state(tokens, *sizes(grids)))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    begin = 0
    for grid in grids:
        rows = slice(begin, begin + math.prod(grid))
        begin = rows.stop
        assert torch.equal(score_ext.relative_state(tokens[rows], *sizes((grid,))), found[0][rows])


PARTS = [part for part in itertools.product((True, False), repeat=3) if any(part)]


def arguments_of(
    parts: tuple[bool, bool, bool], hidden: list[int], num_features: int, dtype: torch.dtype
) -> dict[str, Any]:
    grids = GRIDS["ragged"]
    tokens = tokens_of(grids, 24)
    token, residual, position = parts
    columns = 18 * token + 25 * residual + 21 * position + num_features
    assert columns <= RELATIVE_COLUMNS + num_features
    features = torch.rand(len(tokens), num_features, generator=generator(1)) if num_features else None
    names = ("cu_seqlens", "tokens_per_frame", "columns", "num_frames")
    return {
        "tokens": tokens,
        **dict(zip(names, sizes(grids), strict=True)),
        "layers": linear_layers([columns, *hidden, 1], dtype),
        "features": features,
        **dict(zip(("use_token", "use_residual", "use_position"), parts, strict=True)),
    }


@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
@pytest.mark.parametrize("parts", PARTS)
def test_logits_equal_reference(parts: tuple[bool, bool, bool], dtype: torch.dtype) -> None:
    for hidden, num_features in ([16], 0), ([12, 8], 3):
        arguments = arguments_of(parts, hidden, num_features, dtype)
        found, expected = score_ext.relative_logits(**arguments), reference.relative_logits(**arguments)
        tolerance = {torch.float32: 1e-3, torch.float16: 1e-2, torch.bfloat16: 8e-2}[dtype]
        torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("num_features", [0, 2])
@pytest.mark.parametrize("hidden", [[16], [12, 8]])
def test_gradients_equal_reference(hidden: list[int], num_features: int) -> None:
    arguments = arguments_of((True, True, True), hidden, num_features, torch.float32)
    weight = torch.randn(len(arguments["tokens"]), generator=generator(2))
    gradients = []
    for module in (score_ext, reference):
        layers = [(w.clone().requires_grad_(), b.clone().requires_grad_()) for w, b in arguments["layers"]]
        leaves = [leaf for layer in layers for leaf in layer]
        features = arguments["features"]
        if features is not None:
            features = features.clone().requires_grad_()
            leaves.append(features)
        logits = module.relative_logits(**{**arguments, "layers": layers, "features": features})
        gradients.append(torch.autograd.grad((logits * weight).sum(), leaves))
    for mine, other in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-2, atol=1e-3 * float(other.abs().max()))


def test_more_rows_than_are_formed_at_a_time() -> None:
    grids = ((40, 9, 30),)  # 10,800 tokens
    layers = linear_layers([RELATIVE_COLUMNS, 8, 1])
    batch = tokens_of(grids, 6), *sizes(grids)
    found = score_ext.relative_logits(*batch, layers)
    torch.testing.assert_close(found, reference.relative_logits(*batch, layers), rtol=1e-3, atol=1e-3)


def test_logits_have_the_same_bits_alone_in_a_batch_and_with_any_threads() -> None:
    grids = ((40, 9, 11), (3, 2, 2), (0, 1, 1), (25, 3, 7))  # the second begins within a block of rows
    tokens, layers = tokens_of(grids, 150), linear_layers([RELATIVE_COLUMNS, 24, 20, 1])
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(score_ext.relative_logits(tokens, *sizes(grids), layers))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    begin = 0
    for grid in grids:
        rows = slice(begin, begin + math.prod(grid))
        assert torch.equal(score_ext.relative_logits(tokens[rows], *sizes((grid,)), layers), found[0][rows])
        begin = rows.stop


def test_logits_by_small_weights_are_those_of_the_same_numbers_in_float32() -> None:
    grids = GRIDS["ragged"]
    batch = tokens_of(grids, 40), *sizes(grids)
    for dtype in (torch.float16, torch.bfloat16):
        layers = linear_layers([RELATIVE_COLUMNS, 24, 20, 1], dtype)
        in_float32 = [(weight.float(), bias.float()) for weight, bias in layers]
        assert torch.equal(score_ext.relative_logits(*batch, layers), score_ext.relative_logits(*batch, in_float32))


def test_frames_are_counted_where_they_are_not_given() -> None:
    grids = GRIDS["ragged"]
    tokens, (cu, per_frame, columns, frames) = tokens_of(grids, 5), sizes(grids)
    found = score_ext.relative_state(tokens, cu, per_frame, columns)
    assert torch.equal(found, score_ext.relative_state(tokens, cu, per_frame, columns, frames))
    layers = linear_layers([RELATIVE_COLUMNS, 8, 1])
    counted = score_ext.relative_logits(tokens, cu, per_frame, columns, None, layers)
    assert torch.equal(counted, score_ext.relative_logits(tokens, cu, per_frame, columns, frames, layers))


def test_sizes_that_do_not_fit() -> None:
    tokens = torch.randn(12, 4)
    with pytest.raises(ValueError, match="columns must divide the tokens of a frame, 4 for video 0, got 3"):
        score_ext.relative_state(tokens, int32(0, 12), int32(4), int32(3), 3)
    with pytest.raises(ValueError, match="num_frames must be the frames of all videos, 3, got 2"):
        score_ext.relative_state(tokens, int32(0, 12), int32(4), int32(2), 2)
    with pytest.raises(ValueError, match=r"num_frames must be 0 .. 12 \(the number of tokens\), got 13"):
        score_ext.relative_state(tokens, int32(0, 12), int32(4), int32(2), 13)
    with pytest.raises(ValueError, match=r"columns must be \[1\], one for each video, got int32 \[2\]"):
        score_ext.relative_state(tokens, int32(0, 12), int32(4), int32(2, 2), 3)
