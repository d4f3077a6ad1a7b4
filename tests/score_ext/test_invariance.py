"""What holds for every op: strides, threads and repetition change nothing, and no input is written to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from batches import LAYOUTS, TOKEN_DTYPES, Layout, generator, int32, int64
from cases import DIFFERENTIABLE, OPS, call, linear_layers, op_arguments, tensor_arguments
from torch import Tensor

import score_ext

ARGUMENTS = [(op, name) for op, arguments in op_arguments().items() for name in tensor_arguments(arguments)]


def assert_same(actual: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for mine, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0, equal_nan=True)


def strided_copies(tensor: Tensor) -> Iterator[Tensor]:
    """The same values at other strides: every second of a longer tensor, columns first, from the middle, repeated."""
    doubled = torch.stack([tensor, torch.zeros_like(tensor)], dim=-1)
    yield doubled[..., 0]
    spaced = torch.zeros(2 * tensor.shape[0], *tensor.shape[1:], dtype=tensor.dtype)
    spaced[::2] = tensor
    yield spaced[::2]
    if tensor.dim() == 2:
        yield tensor.t().contiguous().t()
    yield from shifted_copies(tensor)


def shifted_copies(tensor: Tensor) -> Iterator[Tensor]:
    """The same values, contiguous, at addresses that are multiples of 4, 8, 16 and 32 bytes and of no more."""
    for offset in (1, 2, 3, 4, 8, 16):
        storage = torch.zeros(tensor.numel() + offset, dtype=tensor.dtype)
        storage[offset:] = tensor.flatten()
        yield storage[offset:].view(tensor.shape)


@pytest.mark.parametrize(("op", "name"), ARGUMENTS)
def test_strides_change_nothing(op: str, name: str) -> None:
    arguments = op_arguments()[op]
    expected = call(op, arguments)
    for copy in strided_copies(arguments[name]):
        assert torch.equal(copy, arguments[name])
        assert_same(call(op, {**arguments, name: copy}), expected)


# Wide enough for a BLAS to do its work in blocks; odd sizes, for what is left of them.
@pytest.mark.parametrize("dtype", TOKEN_DTYPES)
@pytest.mark.parametrize(("hidden", "rows"), [((64, 64), 300), ((33, 17), 77), ((64,), 128)])
def test_policy_and_its_gradients_at_any_address(dtype: torch.dtype, hidden: tuple[int, ...], rows: int) -> None:
    layout = Layout(((rows, 1),))
    tokens = layout.tokens(48)
    features = torch.rand(rows, 5, generator=generator(1))
    layers = linear_layers([2 * 48 + 5, *hidden, 1], dtype)

    def results(weights: list[Tensor], tokens: Tensor, features: Tensor) -> tuple[Tensor, ...]:
        leaves = [leaf.detach().requires_grad_() for leaf in (*weights, tokens, features)]
        *weights, tokens, features = leaves
        pairs = list(zip(weights[::2], weights[1::2], strict=True))
        logits = score_ext.policy_logits(tokens, layout.cu_seqlens, layout.tokens_per_frame, pairs, features)
        return logits.detach(), *torch.autograd.grad(logits.square().sum(), leaves)

    given = [tensor for layer in layers for tensor in layer]
    expected = results(given, tokens, features)
    for number in range(len(given)):
        for copy in shifted_copies(given[number]):
            assert_same(results([*given[:number], copy, *given[number + 1 :]], tokens, features), expected)
        if given[number].dim() == 2:
            transposed = given[number].t().contiguous().t()
            assert_same(results([*given[:number], transposed, *given[number + 1 :]], tokens, features), expected)
    for copy, other in zip(shifted_copies(tokens), shifted_copies(features), strict=True):
        assert_same(results(given, copy, features), expected)
        assert_same(results(given, tokens, other), expected)


@pytest.mark.parametrize("op", ["surprise", "policy_logits", "divprune", "gather", "compress"])
def test_expanded_tokens(op: str) -> None:
    """Stride 0: a still video as a view of its only frame."""
    arguments = op_arguments(Layout(((6, 1),)))[op]
    expanded = torch.randn(1, 10, generator=generator(0)).expand(6, 10)
    assert expanded.stride() == (0, 1)
    actual = call(op, {**arguments, "tokens": expanded})
    assert_same(actual, call(op, {**arguments, "tokens": expanded.contiguous()}))


@pytest.mark.parametrize("op", OPS)
def test_inputs_are_not_written_to(op: str) -> None:
    arguments = op_arguments()[op]
    copies = {name: arguments[name].clone() for name in tensor_arguments(arguments)}
    versions = {name: arguments[name]._version for name in copies}
    results = call(op, arguments)
    for name, copy in copies.items():
        assert torch.equal(arguments[name], copy)
        assert arguments[name]._version == versions[name]
    storages = {arguments[name].untyped_storage().data_ptr() for name in copies}
    assert all(result.untyped_storage().data_ptr() not in storages for result in results if result.numel())


@pytest.mark.parametrize("op", sorted(DIFFERENTIABLE))
def test_backward_does_not_write_to_inputs(op: str) -> None:
    arguments = op_arguments()[op]
    name, outputs = DIFFERENTIABLE[op]
    leaf = arguments[name].clone().requires_grad_()
    copies = {other: arguments[other].clone() for other in tensor_arguments(arguments)}
    result = call(op, {**arguments, name: leaf})[outputs[0]]
    torch.autograd.grad(result.nan_to_num(posinf=0.0).sum(), leaf)
    assert torch.equal(leaf.detach(), copies[name])
    assert all(torch.equal(arguments[other], copy) for other, copy in copies.items())


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def large_arguments(op: str) -> dict[str, Any]:
    """Enough work for every op to be shared among threads, in one video and in several."""
    layout = Layout(((40, 3500), (0, 1), (7, 900), (70, 3)))
    if op.startswith(("policy", "relative", "divprune")):
        layout = Layout(((40, 60), (0, 1), (7, 9)))
    return op_arguments(layout)[op]


@pytest.mark.parametrize("op", OPS)
def test_number_of_threads_changes_nothing(op: str, threads: None) -> None:
    arguments = large_arguments(op)
    results = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        assert torch.get_num_threads() == number
        results.append(call(op, arguments))
    for result in results[1:]:
        if op == "relative_logits":  # torch's own products may sum in another order
            torch.testing.assert_close(result, results[0], rtol=1e-5, atol=1e-5)
        else:
            assert_same(result, results[0])


@pytest.mark.parametrize("selection", ["topk", "systematic"])
@pytest.mark.parametrize("length", [65536 * 2, 65536 * 3 + 1])
def test_ties_across_the_shares_of_threads(selection: str, length: int, threads: None) -> None:
    """One video shared among threads, almost all tied: each share has to know how many ties those before it took."""
    scores = torch.zeros(length)
    scores[::1000] = 1.0
    results = []
    for number in (1, 2, 3):
        torch.set_num_threads(number)
        results.append(
            call("select", {"scores": scores, "cu_seqlens": int32(0, length), "keep": int32(length // 2),
                            "total_keep": length // 2, "selection": selection})
        )  # fmt: skip
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


@pytest.mark.parametrize("op", OPS)
def test_calling_twice_gives_the_same(op: str) -> None:
    for layout in LAYOUTS.values():
        arguments = op_arguments(layout)[op]
        assert_same(call(op, arguments), call(op, arguments))


@pytest.mark.parametrize("op", ["surprise", "policy_state", "policy_logits", "relative_state", "relative_logits"])
def test_videos_do_not_touch_each_other(op: str) -> None:
    """A batch gives what its videos give one by one."""
    layout = Layout(((5, 7), (3, 1), (9, 4)))
    arguments = op_arguments(layout)[op]
    together = call(op, arguments)[0]
    for number, (span, video) in enumerate(zip(layout.spans(), layout.videos, strict=True)):
        single = Layout((video,))
        alone = {
            **arguments,
            "tokens": arguments["tokens"][span],
            "cu_seqlens": single.cu_seqlens,
            "tokens_per_frame": single.tokens_per_frame,
        }
        if "columns" in arguments:
            alone["columns"], alone["num_frames"] = arguments["columns"][number, None], video[0]
        if "features" in arguments:
            alone["features"] = arguments["features"][span]
        if "end" in arguments:
            alone["end"] = single.length
        if op in (
            "policy_logits",
            "relative_logits",
        ):  # torch may sum products of other rows otherwise
            torch.testing.assert_close(call(op, alone)[0], together[span], rtol=1e-5, atol=1e-6)
        else:
            assert_same(call(op, alone), (together[span],))


def test_seeds_of_any_sign_and_size() -> None:
    """All 64 bits count."""
    arguments = op_arguments()["sample_bernoulli"]
    masks = [call("sample_bernoulli", {**arguments, "seed": int64(seed)})[0] for seed in
             (0, 1, -1, 1 << 32, 1 << 62, -(1 << 63))]  # fmt: skip
    for i, mask in enumerate(masks):
        assert not any(torch.equal(mask, other) for other in masks[:i])
