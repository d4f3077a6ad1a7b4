"""torch's default dtype and device are nothing to the ops, their gradients and their reference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import DIFFERENTIABLE, LAYERS, OPS, call, op_arguments
from helpers.defaults import DEFAULTS, assert_same_under
from torch import Tensor

import score_ext
from score_ext import reference

default = pytest.mark.parametrize("default", DEFAULTS, ids=str)


def typed_arguments(op: str) -> dict[str, Any]:
    """As the typed functions take them: the policy's layers in one list."""
    arguments = op_arguments()[op]
    if "w1" in arguments:
        weights = [arguments.pop(name) for name in LAYERS]
        arguments["layers"] = list(zip(weights[::2], weights[1::2], strict=True))
    return arguments


@default
@pytest.mark.parametrize("op", OPS)
def test_op(op: str, default: torch.dtype | str) -> None:
    arguments = op_arguments()[op]
    assert_same_under(default, lambda: call(op, arguments))


@default
@pytest.mark.parametrize("op", [op for op in OPS if hasattr(reference, op)])
@pytest.mark.parametrize("module", [score_ext, reference], ids=["native", "reference"])
def test_typed_function_and_its_gradients(module: Any, op: str, default: torch.dtype | str) -> None:
    arguments = typed_arguments(op)

    def run() -> list[Tensor]:
        given = dict(arguments)
        leaves: list[Tensor] = []

        def leaf(value: Tensor) -> Tensor:
            leaves.append(value.detach().clone().requires_grad_())
            return leaves[-1]

        if op in DIFFERENTIABLE:
            for name, value in arguments.items():
                if isinstance(value, Tensor) and value.is_floating_point():
                    given[name] = leaf(value)
            if "layers" in given:
                given["layers"] = [(leaf(weight), leaf(bias)) for weight, bias in given["layers"]]
        results = getattr(module, op)(**given)
        results = [results] if isinstance(results, Tensor) else list(results)
        if not leaves:
            return results
        smooth = [result for result in results if result.requires_grad]
        total = torch.stack([result.nan_to_num(0.0, 0.0, 0.0).square().sum() for result in smooth]).sum()
        gradients = torch.autograd.grad(total, leaves, allow_unused=True)
        return [*results, *(gradient for gradient in gradients if gradient is not None)]

    assert_same_under(default, run)


@default
def test_systematic_reference_with_a_start_from_a_sample(default: torch.dtype | str) -> None:
    """Long enough for the shift to be looked for among every second token first."""
    scores = torch.randn(9000, generator=torch.Generator().manual_seed(0))
    packed = torch.tensor([0, 9000], dtype=torch.int32), torch.tensor([900], dtype=torch.int32)
    for module in (score_ext, reference):
        assert_same_under(default, lambda module=module: module.select(scores, *packed, 900, "systematic"))


@default
def test_budgets(default: torch.dtype | str) -> None:
    counts = score_ext.budget.keep_count, score_ext.budget.evs_count, score_ext.budget.vidcom2_count
    assert_same_under(default, lambda: [count(10, 196, 0.3) for count in counts])
