"""What a folder of a compressor holds beside the weights: config.json, read and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from score_video.errors import ScoreError
from score_video.methods import with_seed
from score_video.policy import SurprisePolicyConfig, storage
from score_video.policy.config import MODEL_TYPE as POLICY_TYPE
from score_video.policy.config import SINCE_0_1

MODEL_TYPE = "score_compressor"
"""What config.json calls a compressor."""

GATE_WEIGHTS = "before_tower.safetensors"
"""The weights of a policy before the tower, beside :data:`score_video.policy.storage.WEIGHTS`."""

FILES = (storage.CONFIG, storage.WEIGHTS, GATE_WEIGHTS)
"""What :meth:`Compressor.save_pretrained` may write."""


def read_saved(path: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a compressor that was saved, without its policy and what stands before the tower.

    Folders of 0.1 say ``law``; up to 0.2 all had a ``seed``, which says nothing but for the random rule.
    """
    if (kind := config.get("model_type")) != MODEL_TYPE:
        raise ScoreError(f"{path}: model_type must be {MODEL_TYPE!r} or {POLICY_TYPE!r}, got {kind!r}")
    how = "law" if "law" in config else "selection"
    wanted = {"model_type", "retention", how, "policy" if "policy" in config else "method"}
    if "before_tower" in config:
        wanted |= {"before_tower", "halo"}
    if odd := sorted(wanted ^ (set(config) - {"seed"})):
        raise ScoreError(f"{path} {'lacks' if odd[0] in wanted else 'has an unknown key'} {odd[0]!r}")
    if "policy" in config:
        if not isinstance(config["policy"], dict):
            raise ScoreError(f"{path}: policy must be an object, got {type(config['policy']).__name__}")
        needed = {own.name for own in fields(SurprisePolicyConfig)} - set(SINCE_0_1)
        if missing := sorted(needed - set(config["policy"])):
            raise ScoreError(f"{path}: policy lacks {missing[0]!r}")
    saved = {"retention": config["retention"], "selection": config[how], "halo": config.get("halo", 0)}
    if "policy" in config:
        return saved
    try:
        method = with_seed(config["method"], config["seed"]) if "seed" in config else config["method"]
    except (TypeError, ValueError) as error:
        raise ScoreError(f"{path}: {error}") from None
    return {**saved, "method": method}
