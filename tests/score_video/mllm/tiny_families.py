"""All tiny models by family, as far as the installed transformers has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import tiny
import tiny_frames
import tiny_frames_hybrid
import tiny_grids
import transformers
from packaging.version import Version
from tiny import Family
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from score_video.mllm.registry import FAMILIES

Makers = dict[str, Callable[[], Family]]


def known(*lists: Iterable[Callable[[], Family]]) -> Makers:
    return {make.__name__: make for makers in lists for make in makers if works(make.__name__)}


def works(model_type: str) -> bool:
    """With the installed transformers, which has it and is not too old."""
    since = FAMILIES[model_type].since or "0"
    return model_type in CONFIG_MAPPING_NAMES and Version(transformers.__version__) >= Version(since)


MASKED = known(tiny.FAMILIES.values(), tiny_grids.FULL, tiny_frames.FULL)
"""Of which a compressed prompt is equal to the whole one with the dropped tokens masked."""

SHORTENED = known(tiny_grids.HYBRID, tiny_frames_hybrid.HYBRID)
"""Of which it is equal to the stock model's own on shortened embeddings."""

ALL: Makers = {**MASKED, **SHORTENED}
