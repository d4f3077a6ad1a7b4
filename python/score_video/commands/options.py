"""What decides which tokens are kept, from a command's options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from score_video.command_line import one_line
from score_video.compressor import PRETRAINED, Compressor
from score_video.errors import ScoreError
from score_video.methods import METHODS, find_method
from score_video.rl.registry import find

PRETRAINED_NAME = "pretrained policy"


@dataclass(frozen=True)
class Chosen:
    """What decides, and what it is called in reports and on pictures."""

    compressor: Compressor
    name: str


def chosen_by_options(policy: str | None, method: str | None, **settings: Any) -> Chosen:
    """As :func:`compressor_of_options`, named as the options have it."""
    # a folder's name may hold what cannot be drawn or written
    name = one_line(policy) if policy is not None else method or PRETRAINED_NAME
    return Chosen(compressor_of_options(policy, method, **settings), name)


MOST_COMPARED = 3
"""Rules that can be compared at a time."""


def all_chosen_by_options(policy: str | None, methods: Sequence[str], **settings: Any) -> list[Chosen]:
    """What a repeated ``--method`` names, in order; "pretrained" among them is the policy that comes with the package.

    Arguments as of :func:`compressor_of_options`; ``settings`` are for each of them.

    Raises:
        ScoreError, OSError: as there; or one is named twice, or there are too many.
    """
    if len(methods) > MOST_COMPARED:
        raise ScoreError(f"--method can be given {MOST_COMPARED} times, got {len(methods)}")
    check_named_once("--method", "each rule", methods)
    if len(methods) > 1 and policy is not None:
        raise ScoreError("give --policy or --method, not both")
    if len(methods) < 2:
        method = methods[0] if methods else None
        return [chosen_by_options(policy, None if method == PRETRAINED and policy is None else method, **settings)]
    return [chosen_by_options(None, None if name == PRETRAINED else name, **settings) for name in methods]


def check_named_once(option: str, each: str, names: Sequence[str]) -> None:
    """Raises ScoreError where a repeated option names something twice."""
    for name in names:
        if names.count(name) > 1:
            raise ScoreError(f"{option} must name {each} once, got {name} twice")


def compressor_of_options(
    policy: str | None,
    method: str | None,
    retention: float | None = None,
    selection: str | None = None,
    seed: int | None = None,
    before_tower: Compressor | None = None,
    halo: int | None = None,
) -> Compressor:
    """What the options name; what they leave open is as it was saved, or as :class:`Compressor` has it.

    Args:
        policy: a folder or an id, as for :meth:`Compressor.from_pretrained`; or None.
        method: the name of a training-free method, or a rule of the user's own, "package.module:name", an object or a
            class that is called without arguments; or None. With neither it is the policy that comes with the package.
        retention, selection: settings of the compressor; None: as it was saved, or its default.
        seed: what the random rule draws from; None: as it was saved, or 0.
        before_tower, halo: what chooses before the vision tower, and rings of neighbours that it sees besides; None: as
            it was saved, or nothing.

    Raises:
        ScoreError, OSError: both are given, one does not exist or is damaged, or they do not go together.
    """
    if policy is not None and method is not None:
        raise ScoreError("give --policy or --method, not both")
    overrides: dict[str, Any] = {"retention": retention, "selection": selection}
    overrides |= {"before_tower": before_tower, "halo": halo}
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


def gate_of_option(text: str | None, option: str = "--before-tower") -> Compressor | None:
    """What ``--before-tower NAME:RETENTION`` stands for, NAME as for ``--method`` or a saved policy; None: nothing.

    Args:
        text: what was given.
        option: by which name, for errors.

    Raises:
        ScoreError, OSError: it has another form, or as :func:`compressor_of_options`.
    """
    if text is None:
        return None
    name, _, share = text.rpartition(":")
    try:
        retention = float(share)
    except ValueError:
        retention = -1.0
    if not name or not 0 < retention <= 1:
        raise ScoreError(f"{option} must be NAME:RETENTION, such as surprise-l2:0.3, got {text!r}")
    if name in METHODS or ":" in name:
        return compressor_of_options(None, name, retention=retention)
    try:
        chosen = Compressor.from_pretrained(name)
    except FileNotFoundError as error:
        if Path(name).exists() or "/" in name:
            raise
        raise ScoreError(
            f"{option} must name a folder, the id of a repository, or one of {', '.join(METHODS)}, got {name!r}"
        ) from error
    if chosen.before_tower is not None:
        raise ScoreError(f"{option} must not be {name}, which itself chooses before the tower")
    return replace(chosen, retention=retention)
