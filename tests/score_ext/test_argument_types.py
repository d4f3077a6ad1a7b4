"""Arguments of the wrong type, dtype, rank, length, device or layout: refused by name, also under torch.ops."""

from __future__ import annotations

import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import LAYERS, OPS, call, op_arguments, tensor_arguments
from torch import Tensor

import score_ext

REPOSITORY = Path(__file__).resolve().parents[2]
REFUSED = (TypeError, ValueError, RuntimeError, NotImplementedError)  # what torch itself raises for a schema


def function_arguments(name: str) -> dict[str, Any]:
    """Keyword arguments for score_ext.<name>: those of the op, with the network's weights as layers."""
    arguments = dict(op_arguments()[name])
    if "w1" in arguments:
        weights = [arguments.pop(name) for name in LAYERS]
        arguments["layers"] = list(zip(weights[::2], weights[1::2], strict=True))
    return arguments


FUNCTIONS = [name for name in OPS if hasattr(score_ext, name)]
FUNCTION_ARGUMENTS = [(name, argument) for name in FUNCTIONS for argument in function_arguments(name)]
TENSORS = [(op, name) for op in OPS for name in tensor_arguments(op_arguments()[op])]


def expect_refusal(op: str, argument: str, arguments: dict[str, Any], *errors: type[Exception]) -> None:
    """From the Python function, naming the argument, if there is one; from torch.ops in any case."""
    if op in FUNCTIONS and argument in function_arguments(op):
        function = {**function_arguments(op), argument: arguments[argument]}
        with pytest.raises(errors, match=rf"\b{argument}\b") as caught:
            getattr(score_ext, op)(**function)
        assert_no_paths(caught.value)
    with pytest.raises(REFUSED) as caught:
        call(op, arguments)
    assert_no_paths(caught.value)


def assert_no_paths(error: BaseException) -> None:
    """Where the library was built is nobody's business. (Torch's own texts may name where torch is.)"""
    assert str(REPOSITORY / "csrc") not in str(error)
    assert not re.search(r"\.(cpp|h|cu):\d+", str(error).split("CPU: registered at")[0])


@pytest.mark.unsanitized  # debug information names the sources
def test_library_names_no_path_of_the_build() -> None:
    library = Path(importlib.util.find_spec("score_ext._ops").origin)
    assert str(REPOSITORY).encode() not in library.read_bytes()


def test_every_function_is_covered() -> None:
    public = [name for name in score_ext.__all__ if inspect.isfunction(getattr(score_ext, name))]
    assert set(FUNCTIONS) == set(public) - {"build_info", "cuda_library_loaded"}
    for name in FUNCTIONS:
        missing = set(inspect.signature(getattr(score_ext, name)).parameters) - set(function_arguments(name))
        assert missing <= {"use_token", "use_residual", "use_position", "epsilon"}


@pytest.mark.parametrize(("name", "argument"), FUNCTION_ARGUMENTS)
@pytest.mark.parametrize("value", [object(), [1, 2], np.zeros(3), b"x", 1j], ids=lambda value: type(value).__name__)
def test_wrong_types(name: str, argument: str, value: object) -> None:
    if argument == "dtype":
        value = "float32"
    if argument == "layers" and isinstance(value, list):
        value = [1, 2]
    with pytest.raises((TypeError, ValueError), match=rf"\b{argument}\b"):
        getattr(score_ext, name)(**{**function_arguments(name), argument: value})


@pytest.mark.parametrize(("name", "argument", "value"), [
    ("select", "total_keep", 1.0), ("select", "total_keep", True), ("select", "selection", None),
    ("select", "selection", 1), ("select", "offset", "0.5"), ("select", "offset", None), ("select", "offset", True),
    ("gumbel_topk", "num_samples", 2.0), ("gumbel_topk", "num_samples", False), ("surprise", "metric", 0),
    ("divprune", "ordered", 1), ("divprune", "ordered", None),
    ("surprise", "first", None), ("surprise", "first", "inf"), ("policy_state", "begin", 0.0),
    ("policy_state", "end", "3"),
    ("policy_state", "dtype", torch.float64), ("policy_state", "dtype", torch.int32), ("policy_state", "dtype", None),
    ("policy_state", "use_token", 1), ("policy_state", "use_residual", None), ("policy_state", "epsilon", "1e-5"),
    ("policy_logits", "use_token", "yes"), ("policy_logits", "epsilon", None), ("policy_logits", "layers", None),
    ("policy_logits", "layers", [1, 2]), ("policy_logits", "layers", [(torch.zeros(1, 1),)] * 2),
    ("policy_logits", "layers", [(torch.zeros(1, 1), 1.0)] * 2),
])  # fmt: skip
def test_wrong_scalar_types(name: str, argument: str, value: object) -> None:
    with pytest.raises(TypeError, match=rf"\b{argument}\b"):
        getattr(score_ext, name)(**{**function_arguments(name), argument: value})


def other_dtypes(tensor: Tensor) -> list[torch.dtype]:
    every = [torch.float32, torch.float64, torch.int32, torch.int64, torch.int8, torch.bool, torch.complex64]
    return [dtype for dtype in every if dtype != tensor.dtype]


@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_wrong_dtypes(op: str, name: str) -> None:
    if (op, name) == ("gather", "tokens"):
        pytest.skip("takes any dtype")
    arguments = op_arguments()[op]
    for dtype in other_dtypes(arguments[name]):
        expect_refusal(op, name, {**arguments, name: arguments[name].to(dtype)}, TypeError)


@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_wrong_ranks(op: str, name: str) -> None:
    arguments = op_arguments()[op]
    tensor = arguments[name]
    wrong = [tensor[None], tensor[..., None]]
    if (op, name) != ("gather", "tokens"):
        wrong += [tensor.flatten()[0], *([tensor.flatten()] if tensor.dim() == 2 else [])]
    else:
        wrong = [torch.tensor(1.0)]
    for value in wrong:
        expect_refusal(op, name, {**arguments, name: value}, ValueError)


@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_wrong_lengths(op: str, name: str) -> None:
    """One more and one fewer along each dimension; where another argument has to agree, either may be named."""
    if op == "gather":
        pytest.skip("any number of rows is right")
    arguments = op_arguments()[op]
    tensor = arguments[name]
    for dim in range(tensor.dim()):
        longer = torch.cat([tensor, tensor.narrow(dim, 0, 1)], dim)
        for value in (longer, tensor.narrow(dim, 1, tensor.shape[dim] - 1)):
            changed = {**arguments, name: value}
            if fits_after_all(op, name, dim):
                call(op, changed)
                continue
            if op in FUNCTIONS and name in function_arguments(op):
                with pytest.raises(ValueError):
                    getattr(score_ext, op)(**{**function_arguments(op), name: value})
            with pytest.raises((ValueError, RuntimeError)) as caught:
                call(op, changed)
            assert_no_paths(caught.value)


def fits_after_all(op: str, name: str, dim: int) -> bool:
    """Sizes that no other argument fixes."""
    return (op, name, dim) in {
        ("surprise", "tokens", 1),
        ("policy_state", "tokens", 1),
        ("policy_state", "features", 1),
        ("compress", "tokens", 1),
        ("divprune", "tokens", 1),
        ("relative_state", "tokens", 1),
        ("relative_logits", "tokens", 1),
        ("relative_measures", "tokens", 1),
        ("relative_rows", "features", 1),
        ("plackett_luce_log_prob", "order", 0),
        *(("thumbnails", "pixels", dim) for dim in range(5)),
        *(("count_sketch", "tokens", dim) for dim in range(2)),
    }


@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_tensors_on_another_device(op: str, name: str) -> None:
    """One on the meta device, which has no values: must not be taken for one that has."""
    arguments = op_arguments()[op]
    if tensor_arguments(arguments) == [name]:
        pytest.skip("the only tensor: its device is the op's")
    with pytest.raises(REFUSED) as caught:
        call(op, {**arguments, name: arguments[name].to("meta")})
    assert_no_paths(caught.value)


@pytest.mark.parametrize("op", OPS)
def test_everything_on_the_meta_device_gives_shapes(op: str) -> None:
    arguments = op_arguments()[op]
    meta = {name: arguments[name].to("meta") for name in tensor_arguments(arguments)}
    results = call(op, {**arguments, **meta})
    for mine, other in zip(results, call(op, arguments), strict=True):
        assert mine.device.type == "meta"
        assert (mine.shape, mine.dtype) == (other.shape, other.dtype)


@pytest.mark.parametrize(("op", "name"), TENSORS)
def test_sparse_tensors(op: str, name: str) -> None:
    arguments = op_arguments()[op]
    expect_refusal(op, name, {**arguments, name: arguments[name].to_sparse()}, ValueError)


@pytest.mark.parametrize("op", OPS)
def test_missing_and_unknown_arguments(op: str) -> None:
    arguments = op_arguments()[op]
    optional = ("metric", "first", "scores", "selection", "offset", "ordered", "weights")
    required = [name for name in arguments if name not in optional]
    required = [name for name in required if (op, name) != ("select", "scores")]
    for name in required:
        with pytest.raises(REFUSED):
            call(op, {other: value for other, value in arguments.items() if other != name})
    with pytest.raises(REFUSED):
        call(op, {**arguments, "retention": 0.1})
