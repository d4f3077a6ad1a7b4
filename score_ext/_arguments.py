"""What the typed functions share: checks of types, and the names of 0.1."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

TOKEN_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def op_function(**renamed: str) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """Of a function over an op. What the op refuses becomes a ValueError: some releases of torch hand a kernel's
    exception on as RuntimeError. ``renamed``: keyword arguments that had another name in 0.1, as old=new; the old names
    are accepted until 0.3.
    """

    def decorate(function: Callable[_P, _R]) -> Callable[_P, _R]:
        @wraps(function)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            for old, new in renamed.items():
                if old in kwargs:
                    _rename(function.__name__, kwargs, old, new)
            if torch.compiler.is_compiling():
                return function(*args, **kwargs)
            try:
                return function(*args, **kwargs)
            except RuntimeError as error:
                if str(error).startswith("score."):
                    raise ValueError(str(error)) from None
                raise

        return call

    return decorate


def _rename(function: str, kwargs: dict[str, Any], old: str, new: str) -> None:
    if new in kwargs:
        raise TypeError(f"{function}() got both {new} and {old}, its name in 0.1")
    if not torch.compiler.is_compiling():
        message = f"the argument {old} of score_ext.{function} is deprecated, use {new}"
        warnings.warn(message, DeprecationWarning, stacklevel=3)
    kwargs[new] = kwargs.pop(old)


def check_tensor(name: str, value: object, *dtypes: torch.dtype) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if value.layout is not torch.strided:
        raise ValueError(f"{name} must be a dense tensor, got one of layout {value.layout}")
    if dtypes and value.dtype not in dtypes:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{name} must be {wanted}, got {str(value.dtype).removeprefix('torch.')}")


def check_video_tensors(**tensors: object) -> None:
    for name, value in tensors.items():
        check_tensor(name, value, torch.int32)


def check_kind(name: str, value: object, kind: type, described: str) -> None:
    symbolic = (torch.SymInt,) if kind is int else (torch.SymFloat, int) if kind is float else ()
    if not isinstance(value, (kind, *symbolic)) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{name} must be {described}, got {type(value).__name__}")


def total_of(keep: Tensor, total_keep: int | None) -> int:
    """total_keep, or the sum of the budgets, which have been checked to be a tensor."""
    if total_keep is None:
        return int(keep.sum())
    check_kind("total_keep", total_keep, int, "an integer or None")
    return total_keep


def check_layers(layers: object) -> None:
    if not isinstance(layers, Sequence):
        raise TypeError(f"layers must be a sequence of (weight, bias), got {type(layers).__name__}")
    if len(layers) not in (2, 3):
        raise ValueError(f"layers must be one or two hidden layers and the output layer, got {len(layers)} layers")
    for number, layer in enumerate(layers):
        if not isinstance(layer, Sequence) or len(layer) != 2:
            raise TypeError(f"layers[{number}] must be (weight, bias), got {type(layer).__name__}")
        for name, tensor in zip(("weight", "bias"), layer, strict=True):
            check_tensor(f"layers[{number}] {name}", tensor, *TOKEN_DTYPES)
