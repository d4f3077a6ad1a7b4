"""One name and one order for every argument, in an op and its function; the names of 0.1, accepted for one release."""

from __future__ import annotations

import inspect
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from batches import LAYOUTS, int64
from cases import LAYERS, OPS, call, op_arguments
from test_argument_types import FUNCTIONS, function_arguments
from torch import Tensor

import score_ext
from score_ext import ops, reference

UNLIKE_THE_OP = ("first", "total_keep", "num_frames")  # defaults that a schema cannot have
WITH_TOTAL = [name for name in FUNCTIONS if "total_keep" in function_arguments(name)]
FIELDS = {
    "compress": ("kept", "index", "cu_kept"),
    "gumbel_topk": ("index", "order"),
    "gumbel_topk_with_log_prob": ("index", "log_prob"),
    "sample_bernoulli": ("mask", "log_prob", "count"),
}


def results(value: Any) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


def assert_same(found: Any, expected: Any) -> None:
    for mine, other in zip(results(found), results(expected), strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("module", [score_ext, reference], ids=["native", "reference"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_stand_in_the_order_of_the_op(name: str, module: Any) -> None:
    schema = {argument.name: argument for argument in getattr(torch.ops.score, name).default._schema.arguments}
    parameters = inspect.signature(getattr(module, name)).parameters
    flat = [part for parameter in parameters for part in (LAYERS if parameter == "layers" else [parameter])]
    assert flat == list(schema)
    for parameter in parameters.values():
        if parameter.default is not inspect.Parameter.empty and parameter.name not in (
            "first",
            "total_keep",
            "num_frames",
        ):
            assert schema[parameter.name].default_value == parameter.default


def test_old_names_are_no_ops() -> None:
    schemas = [getattr(torch.ops.score, op).default._schema for op in OPS]
    assert not {"law", "position"} & {argument.name for schema in schemas for argument in schema.arguments}
    for name in ("draw", "sample", "plackett_luce", "plackett_luce_backward"):
        assert not hasattr(torch.ops.score, name)


@pytest.mark.parametrize("module", [score_ext, reference], ids=["native", "reference"])
@pytest.mark.parametrize("name", FIELDS)
def test_results_have_names(name: str, module: Any) -> None:
    found = getattr(module, name)(**function_arguments(name))
    assert isinstance(found, tuple) and found._fields == FIELDS[name]
    assert_same(found, [getattr(found, field) for field in FIELDS[name]])
    schema = getattr(torch.ops.score, name).default._schema
    assert tuple(result.name for result in schema.returns) == FIELDS[name]
    if module is score_ext:
        assert_same(found, call(name, op_arguments()[name]))


@pytest.mark.parametrize("name", WITH_TOTAL)
def test_the_total_may_be_left_out(name: str) -> None:
    arguments = function_arguments(name)
    expected = getattr(score_ext, name)(**arguments)
    assert_same(getattr(score_ext, name)(**{**arguments, "total_keep": None}), expected)
    del arguments["total_keep"]
    assert_same(getattr(score_ext, name)(**arguments), expected)
    with pytest.raises(ValueError, match=r"\bkeep must be 0"):
        getattr(score_ext, name)(**{**arguments, "keep": -arguments["keep"]})
    with pytest.raises(TypeError, match=r"\bkeep must be int32, got int64"):
        getattr(score_ext, name)(**{**arguments, "keep": arguments["keep"].long()})


def test_the_total_of_budgets_whose_sum_is_no_int32() -> None:
    """Summed as int64: not a small number that would pass for a total."""
    keep = torch.tensor([2**31 - 1, 2**31 - 1, 9], dtype=torch.int32)
    with pytest.raises(ValueError, match=r"\bkeep must be 0"):
        score_ext.select(torch.zeros(9), torch.tensor([0, 3, 6, 9], dtype=torch.int32), keep)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("select", "law", "selection"),
        ("compress", "law", "selection"),
        ("policy_state", "position", "features"),
        ("policy_logits", "position", "features"),
    ],
)
def test_old_names_of_arguments(name: str, old: str, new: str) -> None:
    arguments = function_arguments(name)
    expected = getattr(score_ext, name)(**arguments)
    value = arguments.pop(new)
    with pytest.warns(
        DeprecationWarning, match=rf"argument {old} of score_ext.{name} is deprecated, use {new}"
    ) as seen:
        found = getattr(score_ext, name)(**arguments, **{old: value})
    assert seen[0].filename == __file__
    assert_same(found, expected)
    with pytest.raises(TypeError, match=rf"{name}\(\) got both {new} and {old}"):
        getattr(score_ext, name)(**arguments, **{old: value, new: value})


@pytest.mark.parametrize("module", [score_ext, ops], ids=["score_ext", "score_ext.ops"])
@pytest.mark.parametrize(("old", "new"), [("draw", "gumbel_topk"), ("sample", "gumbel_topk_with_log_prob")])
def test_old_names_of_drawing(old: str, new: str, module: Any) -> None:
    """In their old order, where the total came before the number of samples."""
    layout = LAYOUTS["ragged"]
    keep, total = layout.keep(3)
    logits, packed = layout.scores(3), (layout.cu_seqlens, keep)
    expected = getattr(score_ext, new)(logits, *packed, 2, int64(7), total)
    with pytest.warns(DeprecationWarning, match=f"score_ext.{old} is deprecated, use score_ext.{new}") as seen:
        found = getattr(module, old)(logits, *packed, total, 2, int64(7))
    assert seen[0].filename == __file__
    assert_same(found, expected)
    with pytest.warns(DeprecationWarning):
        assert_same(getattr(module, old)(**op_arguments()[new]), call(new, op_arguments()[new]))


@pytest.mark.parametrize("module", [score_ext, ops], ids=["score_ext", "score_ext.ops"])
def test_old_name_of_the_log_probability(module: Any) -> None:
    arguments = function_arguments("plackett_luce_log_prob")
    expected = score_ext.plackett_luce_log_prob(**arguments)
    with pytest.warns(DeprecationWarning, match="use score_ext.plackett_luce_log_prob") as seen:
        found = module.plackett_luce(**arguments)
    assert seen[0].filename == __file__
    assert_same(found, expected)


def test_old_name_of_the_type() -> None:
    with pytest.warns(DeprecationWarning, match="use score_ext.ops.SelectionRule") as seen:
        from score_ext.ops import Law
    assert seen[0].filename == __file__
    assert Law is ops.SelectionRule
    with pytest.raises(AttributeError, match=r"score_ext\.ops.*Laws"):
        _ = ops.Laws


def test_new_names_do_not_warn() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in FUNCTIONS:
            getattr(score_ext, name)(**function_arguments(name))
    subprocess.run([sys.executable, "-W", "error::DeprecationWarning:score_ext", "-c", "import score_ext"], check=True)


@pytest.mark.unsanitized
def test_old_names_compile() -> None:
    """The warning is for who writes the call: a graph has none."""
    torch._dynamo.reset()
    scores, cu, keep = torch.randn(9), torch.tensor([0, 9], dtype=torch.int32), torch.tensor([4], dtype=torch.int32)

    @torch.compile(fullgraph=True, backend="aot_eager")
    def old() -> tuple[Tensor, ...]:
        index = score_ext.select(scores, cu, keep, 4, law="systematic")
        return index, *score_ext.draw(scores, cu, keep, 4, 2, int64(1))

    @torch.compile(fullgraph=True, backend="aot_eager")
    def new() -> tuple[Tensor, ...]:
        index = score_ext.select(scores, cu, keep, 4, selection="systematic")
        drawn = score_ext.gumbel_topk(scores, cu, keep, 2, int64(1), 4)
        return index, drawn.index, drawn.order

    assert_same(old(), new())
