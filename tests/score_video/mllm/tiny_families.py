"""All tiny models by family, as far as the installed transformers has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import tiny
import tiny_frames
import tiny_grids
from tiny import Family
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

Makers = dict[str, Callable[[], Family]]


def known(*lists: Iterable[Callable[[], Family]]) -> Makers:
    return {make.__name__: make for makers in lists for make in makers if make.__name__ in CONFIG_MAPPING_NAMES}


MASKED = known(tiny.FAMILIES.values(), tiny_grids.FULL, tiny_frames.FULL)
"""Of which a compressed prompt is equal to the whole one with the dropped tokens masked."""

SHORTENED = known(tiny_grids.HYBRID, tiny_frames.HYBRID)
"""Of which it is equal to the stock model's own on shortened embeddings."""
