"""What is the same under other defaults of torch: serving engines and loaders of large models change them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

DEFAULT_DTYPES = (torch.bfloat16, torch.float16, torch.float64)
# What is made on meta without being asked for cannot be computed with: it fails, or gives a result on meta.
DEFAULTS: tuple[torch.dtype | str, ...] = (*DEFAULT_DTYPES, "meta")


@contextmanager
def torch_default(default: torch.dtype | str) -> Iterator[None]:
    """A default dtype, or a default device."""
    if isinstance(default, str):
        with torch.device(default):
            yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(default)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def assert_same(actual: Any, expected: Any, name: str = "result") -> None:
    """Equal to the bit, with their dtypes and devices, all the way down."""
    if isinstance(expected, Tensor):
        assert isinstance(actual, Tensor), name
        assert (actual.dtype, actual.device, actual.shape) == (expected.dtype, expected.device, expected.shape), name
        assert torch.equal(actual.detach().nan_to_num(7), expected.detach().nan_to_num(7)), name
    elif dataclasses.is_dataclass(expected):
        for field in dataclasses.fields(expected):
            assert_same(getattr(actual, field.name), getattr(expected, field.name), f"{name}.{field.name}")
    elif isinstance(expected, Mapping):
        assert actual.keys() == expected.keys(), name
        for key, value in expected.items():
            assert_same(actual[key], value, f"{name}[{key!r}]")
    elif isinstance(expected, Sequence) and not isinstance(expected, str):
        assert len(actual) == len(expected), name
        for number, (mine, other) in enumerate(zip(actual, expected, strict=True)):
            assert_same(mine, other, f"{name}[{number}]")
    else:
        assert actual == expected or (actual != actual and expected != expected), name


def assert_same_under(default: torch.dtype | str, function: Callable[[], Any]) -> None:
    expected = function()
    with torch_default(default):
        actual = function()
    assert_same(actual, expected)
