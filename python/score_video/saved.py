"""Compressors from the folders they were saved in, or from what a command's options say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

from score_ext.ops import Law
from score_video.compressor import Compressor
from score_video.policy.weights import kind_of, load_policy


def load_compressor(
    folder: Path, *, retention: float | None = None, law: Law | None = None, seed: int | None = None
) -> Compressor:
    """A compressor that was saved, or one of a policy that was saved alone.

    Args:
        folder: what ``save_pretrained`` of a :class:`Compressor` or of a policy wrote.
        retention, law, seed: what is to be otherwise than it was saved, or than a compressor's default.

    Raises:
        FileNotFoundError, TypeError, ValueError: as :func:`load_policy` and :meth:`Compressor.from_pretrained`.
    """
    given: dict[str, Any] = {"retention": retention, "law": law, "seed": seed}
    changes = {name: value for name, value in given.items() if value is not None}
    if kind_of(folder) == "score_policy":
        return Compressor(load_policy(folder), **changes)
    return replace(Compressor.from_pretrained(folder), **changes)


def find_compressor(
    policy: Path | None, method: str | None, retention: float | None, law: str | None, seed: int | None
) -> Compressor:
    """What the options name; what they leave open is as it was saved, or as :class:`Compressor` has it.

    Args:
        policy: a folder that ``save_pretrained`` of a policy or of a compressor wrote; or None.
        method: the name of a training-free method; or None.
        retention, law, seed: as of a compressor; or None.

    Raises:
        ValueError, FileNotFoundError: both are given, one does not exist or is damaged, or they do not go together.
    """
    if policy is not None and method is not None:
        raise ValueError("give --policy or --method, not both")
    if law not in (None, *get_args(Law)):
        raise ValueError(f"there is no law {law!r}; there are {', '.join(get_args(Law))}")
    given: dict[str, Any] = {"retention": retention, "law": law, "seed": seed}
    try:
        if policy is not None:
            return load_compressor(policy, **given)
        given["method"] = method
        return Compressor(**{name: value for name, value in given.items() if value is not None})
    except TypeError as error:  # of a config.json
        raise ValueError(str(error)) from None
