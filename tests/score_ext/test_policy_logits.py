"""policy_logits: the policy network's forward and backward, against the same network in plain torch."""

from __future__ import annotations

import math

import pytest
import torch
from batches import LAYOUTS, TOKEN_DTYPES, Layout, generator, int32, layouts, seeds, token_dtypes, widths
from cases import linear_layers
from hypothesis import given, settings
from hypothesis import strategies as st
from test_policy_state import nearly_static
from torch import Tensor

import score_ext
from score_ext import reference

PARTS = ((True, True), (True, False), (False, True))
# Both sides round the state and every layer to this dtype, but not always the same way: a few units in the last place.
ROUNDING = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}

Layers = list[tuple[Tensor, Tensor]]


def close(actual: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Errors of rounding are relative to the largest value: small ones are differences of large ones."""
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    torch.testing.assert_close(
        actual.float(), expected.float(), rtol=ROUNDING[dtype], atol=ROUNDING[dtype] * scale, equal_nan=True
    )


def network(width: int, parts: tuple[bool, bool], num_features: int, hidden: list[int], dtype: torch.dtype) -> Layers:
    return linear_layers([width * sum(parts) + num_features, *hidden, 1], dtype)


@settings(max_examples=80, deadline=None)
@given(
    layouts(),
    widths,
    token_dtypes,
    token_dtypes,
    st.sampled_from(PARTS),
    st.integers(0, 3),
    st.sampled_from([[4], [17], [8, 5], [16, 16]]),
    seeds,
)
def test_equals_reference(
    layout: Layout,
    width: int,
    token_dtype: torch.dtype,
    dtype: torch.dtype,
    parts: tuple[bool, bool],
    num_features: int,
    hidden: list[int],
    seed: int,
) -> None:
    features = torch.rand(layout.length, num_features, generator=generator(seed)) if num_features else None
    layers = network(width, parts, num_features, hidden, dtype)
    arguments = layout.tokens(width, token_dtype, seed), layout.cu_seqlens, layout.tokens_per_frame, layers, features
    logits = score_ext.policy_logits(*arguments, *parts)
    assert logits.dtype == torch.float32
    close(logits, reference.policy_logits(*arguments, *parts), dtype)


@pytest.mark.parametrize("hidden", [[512], [512, 512], [64, 64]])
def test_large_networks_over_several_blocks_of_rows(hidden: list[int]) -> None:
    layout = Layout(((40, 50), (3, 7)))
    width = 700  # 2 MiB of state are 374 rows
    layers = network(width, (True, True), 0, hidden, torch.float32)
    arguments = layout.tokens(width), layout.cu_seqlens, layout.tokens_per_frame, layers
    close(score_ext.policy_logits(*arguments), reference.policy_logits(*arguments), torch.float32)


def gradients(function: object, tokens: Tensor, packed: tuple[Tensor, Tensor], layers: Layers, features: Tensor | None,
              parts: tuple[bool, bool], weight: Tensor) -> list[Tensor]:  # fmt: skip
    """Of sum(weight * logits), with respect to the tokens, the features and every layer."""
    leaves = [tokens.clone().requires_grad_()]
    copies = [(w.clone().requires_grad_(), b.clone().requires_grad_()) for w, b in layers]
    if features is not None:
        leaves.append(features.clone().requires_grad_())
    logits = function(leaves[0], *packed, copies, leaves[1] if features is not None else None, *parts)
    leaves += [tensor for pair in copies for tensor in pair]
    return list(torch.autograd.grad((logits * weight).sum(), leaves))


@pytest.mark.parametrize("name", ["one", "ragged", "with_empty", "single_frame", "only_empty"])
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("hidden", [[8], [8, 6]])
@pytest.mark.parametrize("num_features", [0, 2])
def test_gradients_equal_reference(name: str, parts: tuple[bool, bool], hidden: list[int], num_features: int) -> None:
    layout = LAYOUTS[name]
    features = torch.rand(layout.length, num_features, generator=generator(5)) if num_features else None
    layers = network(9, parts, num_features, hidden, torch.float32)
    packed = layout.cu_seqlens, layout.tokens_per_frame
    rest = layout.tokens(9), packed, layers, features, parts, layout.scores(seed=2)
    actual = gradients(score_ext.policy_logits, *rest)
    expected = gradients(reference.policy_logits, *rest)
    for mine, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("token_dtype", TOKEN_DTYPES)
@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
def test_gradients_in_every_dtype(token_dtype: torch.dtype, dtype: torch.dtype) -> None:
    layout = LAYOUTS["ragged"]
    tokens = layout.tokens(12, token_dtype)
    features = torch.rand(layout.length, 2, generator=generator(5))
    layers = network(12, (True, True), 2, [8, 6], dtype)
    packed = layout.cu_seqlens, layout.tokens_per_frame
    actual = gradients(score_ext.policy_logits, tokens, packed, layers, features, (True, True), layout.scores(seed=2))
    wide = [(w.float(), b.float()) for w, b in layers]
    expected = gradients(
        reference.policy_logits, tokens.float(), packed, wide, features, (True, True), layout.scores(seed=2)
    )
    leaves = [tokens, features, *(tensor for pair in layers for tensor in pair)]
    for mine, other, leaf in zip(actual, expected, leaves, strict=True):
        assert mine.dtype == leaf.dtype
        # The one-ulp errors of some 10 rounded steps, each relative to the largest gradient.
        tolerance = ROUNDING[max(dtype, token_dtype, key=lambda d: torch.finfo(d).eps)]
        error = (mine.float() - other).abs().max() / other.abs().max()
        assert error < tolerance, f"{error} of the largest gradient"


def test_gradients_equal_finite_differences() -> None:
    """Against float64 differences of the network written out by hand, not of our reference."""
    layout = Layout(((3, 2), (2, 3)))
    packed = layout.cu_seqlens, layout.tokens_per_frame
    layers = network(5, (True, True), 2, [6, 4], torch.float32)
    features = torch.rand(layout.length, 2, generator=generator(5))
    weight = layout.scores(seed=2)
    actual = gradients(score_ext.policy_logits, layout.tokens(5), packed, layers, features, (True, True), weight)

    def objective(values: list[Tensor]) -> Tensor:
        x, place, w1, b1, w2, b2, w_out, b_out = values
        residual = torch.cat([x[0:2] * 0, x[2:6] - x[0:4], x[6:9] * 0, x[9:12] - x[6:9]])
        halves = [torch.nn.functional.layer_norm(part, (5,)) for part in (x, residual)]
        hidden = torch.nn.functional.gelu(torch.cat([*halves, place], dim=1) @ w1.T + b1)
        hidden = torch.nn.functional.gelu(hidden @ w2.T + b2)
        return ((hidden @ w_out.T + b_out)[:, 0] * weight.double()).sum()

    leaves = [layout.tokens(5), features, *(tensor for pair in layers for tensor in pair)]
    wide = [leaf.double() for leaf in leaves]
    for number, gradient in enumerate(actual):
        numeric = torch.zeros(wide[number].numel(), dtype=torch.float64)
        for i in range(len(numeric)):
            values = []
            for sign in (1, -1):
                moved = [leaf.clone() for leaf in wide]
                moved[number].view(-1)[i] += sign * 1e-6
                values.append(objective(moved))
            numeric[i] = (values[0] - values[1]) / 2e-6
        torch.testing.assert_close(gradient.double().flatten(), numeric, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
def test_nearly_static_video(dtype: torch.dtype) -> None:
    """The residual is one unit in the last place or 0: forming it after a product would leave only noise."""
    tokens = nearly_static(dtype)
    packed = int32(0, len(tokens)), int32(5)
    layers = network(64, (False, True), 0, [16, 16], torch.float32)
    parts = (False, True)
    x = tokens.double()
    residual = torch.cat([torch.zeros(5, 64, dtype=torch.float64), x[5:] - x[:-5]])
    hidden = torch.nn.functional.layer_norm(residual, (64,))
    for weight, bias in layers[:-1]:
        hidden = torch.nn.functional.gelu(hidden @ weight.double().T + bias.double())
    expected = (hidden @ layers[-1][0].double().T + layers[-1][1].double())[:, 0]
    close(score_ext.policy_logits(tokens, *packed, layers, None, *parts), expected, torch.float32)

    weight = Layout(((8, 5),)).scores(seed=1)
    actual = gradients(score_ext.policy_logits, tokens.float(), packed, layers, None, parts, weight)
    wanted = gradients(reference.policy_logits, tokens.float(), packed, layers, None, parts, weight)
    for mine, other in zip(actual, wanted, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-4 * float(other.abs().max()))


def in_float64(tokens: Tensor, tokens_per_frame: int, layers: Layers, epsilon: float = 1e-5) -> Tensor:
    """The logits of one video, by hand."""
    x = tokens.double()
    residual = torch.zeros_like(x)
    residual[tokens_per_frame:] = x[tokens_per_frame:] - x[:-tokens_per_frame]
    width = (x.shape[1],)
    hidden = torch.cat([torch.nn.functional.layer_norm(half, width, eps=epsilon) for half in (x, residual)], dim=1)
    for weight, bias in layers[:-1]:
        hidden = torch.nn.functional.gelu(hidden @ weight.double().T + bias.double())
    return (hidden @ layers[-1][0].double().T + layers[-1][1].double())[:, 0]


@pytest.mark.parametrize("width", [300, 1500])
@pytest.mark.parametrize("offset", ["constant", "first columns", "all but the first columns", "ramp"])
def test_means_far_larger_than_deviations(offset: str, width: int) -> None:
    """Products of the tokens themselves, less mean times sum of weights, would cancel; so would a first guess at the
    mean that is far off. 256 columns make a slice (csrc/cpu/policy_logits.cpp)."""
    tokens = torch.randn(35, width, generator=generator(0))
    column = torch.arange(width)
    tokens += {
        "constant": torch.full((width,), 3e4),
        "first columns": torch.where(column < 256, 3e4, 0.0),
        "all but the first columns": torch.where(column < 256, 0.0, 3e4),
        "ramp": 3e4 + column,
    }[offset]
    tokens[20:] += 1e4  # from a frame on, so that the residual has a mean too
    layers = network(width, (True, True), 0, [64], torch.float32)
    logits = score_ext.policy_logits(tokens, int32(0, 35), int32(5), layers)
    close(logits, in_float64(tokens, 5, layers), torch.float32)


@pytest.mark.parametrize("value", [math.nan, math.inf, 3e38, -3e38])
def test_one_token_out_of_range_leaves_the_others_alone(value: float) -> None:
    """Also those of its tile; the next frame's token at its place sees it through the residual."""
    layout = Layout(((4, 7),))
    tokens = layout.tokens(40)
    layers = network(40, (True, True), 0, [8, 8], torch.float32)
    packed = layout.cu_seqlens, layout.tokens_per_frame, layers
    expected = score_ext.policy_logits(tokens, *packed)
    tokens[9, 3] = value
    changed = score_ext.policy_logits(tokens, *packed)
    others = [row for row in range(28) if row not in (9, 16)]
    assert torch.equal(changed[others], expected[others])
    if math.isfinite(value):
        close(changed, in_float64(tokens, 7, layers), torch.float32)
    else:
        assert changed[[9, 16]].isnan().all()


def test_same_bits_in_any_batch() -> None:
    layouts = [Layout(((9, 11),)), Layout(((1, 5),)), Layout(((3, 50),))]
    tokens = [layout.tokens(300, seed=number) for number, layout in enumerate(layouts)]
    layers = network(300, (True, True), 0, [64, 16], torch.float32)
    alone = [
        score_ext.policy_logits(rows, layout.cu_seqlens, layout.tokens_per_frame, layers)
        for rows, layout in zip(tokens, layouts, strict=True)
    ]
    together = score_ext.policy_logits(torch.cat(tokens), int32(0, 99, 104, 254), int32(11, 5, 50), layers)
    assert torch.equal(together, torch.cat(alone))


@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
@pytest.mark.parametrize("num_features", [0, 3])
def test_the_form_for_other_devices(num_features: int, dtype: torch.dtype) -> None:
    """A GPU takes torch's products of a state with rows of whole vectors: here on the CPU, of 8 * 2 + 0 or 3 columns
    and of 9 * 2 + 0 or 3."""
    other = torch._C.DispatchKeySet(torch._C.DispatchKey.XLA)
    for width in (8, 9):
        layout = LAYOUTS["ragged"]
        features = torch.rand(layout.length, num_features, generator=generator(5)) if num_features else None
        (w1, b1), (w2, b2), (w_out, b_out) = network(width, (True, True), num_features, [8, 6], dtype)
        packed = layout.tokens(width), layout.cu_seqlens, layout.tokens_per_frame
        arguments = (*packed, w1, b1, w2, b2, w_out, b_out, features)
        logits = torch.ops.score.policy_logits.default.redispatch(other, *arguments)
        close(logits, torch.ops.score.policy_logits(*arguments), dtype)


def test_gradients_over_several_blocks_of_rows() -> None:
    """More rows than the backward handles at a time (4096), with a frame that straddles the border."""
    layout = Layout(((100, 30), (71, 30), (1, 1)))
    tokens = layout.tokens(6)
    packed = layout.cu_seqlens, layout.tokens_per_frame
    layers = network(6, (True, True), 0, [4], torch.float32)
    rest = tokens, packed, layers, None, (True, True), layout.scores(seed=2)
    for mine, other in zip(gradients(score_ext.policy_logits, *rest), gradients(reference.policy_logits, *rest),
                           strict=True):  # fmt: skip
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5 * float(other.abs().max()))


def test_only_what_is_asked_for_gets_a_gradient() -> None:
    layout = LAYOUTS["one"]
    layers = network(5, (True, True), 0, [4], torch.float32)
    layers[0][0].requires_grad_()
    tokens = layout.tokens(5)
    score_ext.policy_logits(tokens, layout.cu_seqlens, layout.tokens_per_frame, layers).sum().backward()
    assert layers[0][0].grad is not None
    assert tokens.grad is None
    assert layers[0][1].grad is None
