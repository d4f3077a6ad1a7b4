"""Policies and compressors from the folders they were saved in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from score_ext.ops import Law
from score_video.compressor import Compressor, load_policy_weights
from score_video.policy import SurprisePolicy, SurprisePolicyConfig


def load_policy(folder: Path) -> SurprisePolicy:
    """A policy that its ``save_pretrained`` wrote, on the CPU and frozen.

    Raises:
        FileNotFoundError: there is no such folder, or nothing of a policy in it.
        TypeError, ValueError: it holds something else, or is damaged.
    """
    if (kind := _kind(folder)) != "score_policy":
        raise ValueError(f"{folder} must hold a policy (model_type 'score_policy'), got {kind!r}")
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(2, "holds no policy (no model.safetensors)", str(folder))
    policy = SurprisePolicy(SurprisePolicyConfig.from_pretrained(folder))
    load_policy_weights(policy, folder / "model.safetensors")
    policy.eval()  # type: ignore[no-untyped-call]
    frozen: SurprisePolicy = policy.requires_grad_(False)
    return frozen


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
    if _kind(folder) == "score_policy":
        return Compressor(load_policy(folder), **changes)
    return replace(Compressor.from_pretrained(folder), **changes)


def _kind(folder: Path) -> object:
    """The ``model_type`` in a folder's config.json."""
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(2, "holds no policy (no config.json)", str(folder))
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("model_type")
    except (ValueError, AttributeError):
        raise ValueError(f"{path} is not the configuration of a policy") from None
