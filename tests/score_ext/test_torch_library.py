"""The ops as torch sees them: opcheck, torch.compile, torch.export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from batches import LAYOUTS, Layout
from cases import DIFFERENTIABLE, OPS, call, op_arguments, tensor_arguments
from torch import Tensor

import score_ext

pytestmark = pytest.mark.unsanitized


def with_gradient(op: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments with their differentiable tensor as a leaf that requires a gradient."""
    if op not in DIFFERENTIABLE:
        return arguments
    name = DIFFERENTIABLE[op][0]
    return {**arguments, name: arguments[name].clone().requires_grad_()}


def opcheck(op: str, arguments: dict[str, Any], *test_utils: str) -> None:
    overload = getattr(torch.ops.score, op).default
    torch.library.opcheck(overload, (), arguments, test_utils=test_utils or "ALL")


@pytest.mark.parametrize("layout", ["ragged", "with_empty"])
@pytest.mark.parametrize("op", OPS)
def test_opcheck(op: str, layout: str) -> None:
    """Schema, autograd registration, fake tensors, and AOT dispatch with static and dynamic shapes."""
    opcheck(op, op_arguments(LAYOUTS[layout])[op])


@pytest.mark.parametrize("op", sorted(DIFFERENTIABLE))
def test_opcheck_with_gradient(op: str) -> None:
    arguments = with_gradient(op, op_arguments()[op])
    # opcheck's AOT tests add up all results in place, which fails where the first is of integers: for those ops
    # test_compiled_gradients has to do.
    integers_first = DIFFERENTIABLE[op][1] != (0,)
    opcheck(op, arguments, *(("test_schema", "test_autograd_registration", "test_faketensor") * integers_first))


def test_opcheck_variants() -> None:
    arguments = op_arguments()
    for op, changes in (
        ("policy_logits", {"w2": None, "b2": None}),
        ("policy_state", {"features": None, "dtype": torch.bfloat16, "begin": 3, "end": 11}),
        ("compress", {"scores": None, "selection": "topk"}),
        ("surprise", {"first": None, "metric": "l2"}),
    ):
        changed = {**arguments[op], **changes}
        if op == "policy_logits":
            changed["w_out"] = torch.randn(1, 12)
        opcheck(op, changed)


def compiled_inputs(op: str, layout: Layout, seed: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    arguments = op_arguments(layout, seed)[op]
    tensors = {name: arguments[name] for name in tensor_arguments(arguments)}
    return tensors, {name: value for name, value in arguments.items() if name not in tensors}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_without_a_graph_break(op: str, dynamic: bool) -> None:
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, dynamic=dynamic, backend="aot_eager")
    def compiled(tensors: dict[str, Tensor], others: dict[str, Any]) -> tuple[Tensor, ...]:
        results = call(op, {**tensors, **others})
        return tuple(result * 2 if result.is_floating_point() else result for result in results)

    for number, videos in enumerate([((5, 7), (3, 2)), ((4, 9), (6, 3)), ((2, 5), (8, 8))]):
        tensors, others = compiled_inputs(op, Layout(videos), number)
        results = compiled(tensors, others)
        expected = call(op, {**tensors, **others})
        for mine, other in zip(results, expected, strict=True):
            wanted = other * 2 if other.is_floating_point() else other
            torch.testing.assert_close(mine, wanted, equal_nan=True)


@pytest.mark.parametrize("op", sorted(DIFFERENTIABLE))
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_gradients(op: str, dynamic: bool) -> None:
    torch._dynamo.reset()
    name, outputs = DIFFERENTIABLE[op]

    def loss(arguments: dict[str, Any]) -> Tensor:
        result = call(op, arguments)[outputs[0]]
        return (result * torch.arange(result.numel()).view_as(result)).sum()

    gradients = []
    for function in (loss, torch.compile(loss, fullgraph=True, dynamic=dynamic, backend="aot_eager")):
        arguments = with_gradient(op, op_arguments()[op])
        gradients.append(torch.autograd.grad(function(arguments), arguments[name])[0])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compress_with_inductor(dynamic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole path through torch's default compiler, with work before and after that it fuses."""
    # torch finds compiled graphs again by what they compute: one kept from before an argument was renamed would run.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()

    def path(tokens: Tensor, layout: Layout, keep: Tensor, total_keep: int) -> tuple[Tensor, ...]:
        kept, index, cu_kept = score_ext.compress(
            tokens * 2 + 1, layout.cu_seqlens, layout.tokens_per_frame, keep, total_keep
        )
        return kept.sin(), index + 1, cu_kept

    def compiled_path(tokens: Tensor, cu: Tensor, frames: Tensor, keep: Tensor, total_keep: int) -> tuple[Tensor, ...]:
        kept, index, cu_kept = score_ext.compress(tokens * 2 + 1, cu, frames, keep, total_keep)
        return kept.sin(), index + 1, cu_kept

    compiled = torch.compile(compiled_path, fullgraph=True, dynamic=dynamic)
    for videos in [((5, 7), (3, 2)), ((4, 9), (6, 3))]:
        layout = Layout(videos)
        keep, total_keep = layout.keep(1)
        tokens = layout.tokens(6)
        actual = compiled(tokens, layout.cu_seqlens, layout.tokens_per_frame, keep, total_keep)
        for mine, other in zip(actual, path(tokens, layout, keep, total_keep), strict=True):
            torch.testing.assert_close(mine, other)


class Compress(torch.nn.Module):
    def forward(self, tokens: Tensor, cu_seqlens: Tensor, tokens_per_frame: Tensor, keep: Tensor) -> Tensor:
        return score_ext.compress(tokens, cu_seqlens, tokens_per_frame, keep, 9)[0]


def test_export() -> None:
    layout, other = Layout(((4, 6), (5, 3))), Layout(((7, 5), (2, 2)))
    keep = torch.tensor([6, 3], dtype=torch.int32)
    length = torch.export.Dim("length", min=9)
    exported = torch.export.export(
        Compress(),
        (layout.tokens(8), layout.cu_seqlens, layout.tokens_per_frame, keep),
        dynamic_shapes=({0: length}, None, None, None),
    )
    assert any("score.compress" in str(node.target) for node in exported.graph.nodes)
    for case in (layout, other):
        keep = torch.tensor([6, 3], dtype=torch.int32)
        arguments = case.tokens(8), case.cu_seqlens, case.tokens_per_frame, keep
        assert torch.equal(exported.module()(*arguments), Compress()(*arguments))
