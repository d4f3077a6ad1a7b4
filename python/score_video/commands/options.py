"""The compressor that a command's options stand for."""

from __future__ import annotations

from typing import Any

from score_video.compressor import PRETRAINED, Compressor
from score_video.errors import ScoreError
from score_video.methods import METHODS, find_method
from score_video.rl.registry import find


def compressor_of_options(
    policy: str | None,
    method: str | None,
    retention: float | None = None,
    selection: str | None = None,
    seed: int | None = None,
) -> Compressor:
    """What the options name; what they leave open is as it was saved, or as :class:`Compressor` has it.

    Args:
        policy: a folder or an id, as for :meth:`Compressor.from_pretrained`; or None.
        method: the name of a training-free method, or a rule of the user's own, "package.module:name", an object or a
            class that is called without arguments; or None. With neither it is the policy that comes with the package.
        retention, selection: settings of the compressor; None: as it was saved, or its default.
        seed: of the random rule; None: as it was saved, or 0.

    Raises:
        ScoreError, OSError: both are given, one does not exist or is damaged, or they do not go together.
    """
    if policy is not None and method is not None:
        raise ScoreError("give --policy or --method, not both")
    overrides: dict[str, Any] = {"retention": retention, "selection": selection}
    if method is not None and ":" in method:
        rule: Any = find(METHODS, method)
        given = {name: value for name, value in overrides.items() if value is not None}
        try:
            return Compressor(rule() if isinstance(rule, type) else rule, **given)
        except TypeError as error:
            raise ScoreError(f"--method {method}: {error}") from None
    if method is not None:
        find_method(method)  # a folder or an id is not meant here
    return Compressor.from_pretrained(policy or method or PRETRAINED, **overrides, seed=seed)
