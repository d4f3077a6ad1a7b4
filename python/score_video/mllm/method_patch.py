"""What stands in the place of a method of one object: a model's ``generate`` or ``forward``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch

from score_video.mllm.first_pass import inner_model

_Function = TypeVar("_Function", bound=Callable[..., Any])


def not_compiled(function: _Function) -> _Function:
    """Decorates what ``model.compile()`` is to leave alone: lengths differ from call to call."""
    left: _Function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return left


def frame_not_compiled(function: _Function) -> _Function:
    """The same, but what the function calls is compiled: the stock model."""
    left: _Function = torch.compiler.disable(function, recursive=False)  # type: ignore[no-untyped-call]
    return left


def parameter_names(model: Any, method: str) -> list[str]:
    """The names of a method's arguments, which wrappers around a model may not tell."""
    for one in (model, inner_model(model)):
        parameters = inspect.signature(getattr(one, method)).parameters
        if not any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values()):
            return list(parameters)
    return ["inputs" if method == "generate" else "input_ids"]


class MethodPatch:
    """What stands in the place of a method of one object, and has its signature (``generate`` reads ``forward``'s)."""

    def __init__(
        self,
        original: Callable[..., Any],
        run: Callable[..., Any],
        inside: Callable[[], AbstractContextManager[bool]],
        parameters: Sequence[str],
    ) -> None:
        """
        Args:
            original: the method.
            run: called in its place with it, the arguments by name, and the visual layout.
            inside: a block for each call; whether the thread is in one already, where the method itself is called.
            parameters: the names of the arguments.
        """
        self._original = original
        self._run = run
        self._inside = inside
        self._parameters = parameters
        self.__name__ = getattr(original, "__name__", "forward")
        self.__doc__ = original.__doc__

    @property
    def __signature__(self) -> inspect.Signature:  # none is kept: it may hold what cannot be saved to a file
        return inspect.signature(self._original)

    @frame_not_compiled
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self._inside() as already:
            if already:
                return self._original(*args, **kwargs)
            layout = kwargs.pop("visual_layout", None)
            given = dict(zip(self._parameters, args, strict=False))
            return self._run(self._original, {**given, **kwargs}, layout)
