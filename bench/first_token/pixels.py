"""What becomes of frames before the vision tower: the processor's floats of all patches, and ours of those it sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bench.first_token.measure import THEIRS
from bench.first_token.setting import QUESTION, STOCK
from bench.prefill.timing import measure
from score_video.mllm.conversation import Clip, chat_text, model_inputs, processor_inputs
from score_video.mllm.pixels import VIDEOS, float_pixels

ALL, SOME = "bytes, all normalised", "bytes, 30% normalised"
WAYS = (STOCK, ALL, SOME)
SEEN = 0.3
PATCHES = 4
"""Of a token."""


def ways_of(model: Any, processor: Any, clip: Clip) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """How pixels are made, by name: of all patches, and of a part of them that is drawn at random."""
    text = chat_text(processor, QUESTION)
    tokens = len(processor_inputs(processor, clip, text)[VIDEOS]) // PATCHES
    rows = (torch.rand(tokens) < SEEN).repeat_interleave(PATCHES).nonzero()[:, 0].to(model.device)
    yield STOCK, lambda: processor_inputs(processor, clip, text, THEIRS)[VIDEOS]
    yield ALL, lambda: float_pixels(model_inputs(model, processor, clip, text))
    yield SOME, lambda: float_pixels(model_inputs(model, processor, clip, text), rows)


def check_same_pixels(model: Any, processor: Any, clip: Clip) -> None:
    """Raises RuntimeError where ours are not the processor's, to the bit."""
    made = dict(ways_of(model, processor, clip))
    if not torch.equal(made[ALL]().cpu(), made[STOCK]()):
        raise RuntimeError("pixels that were normalised after they were cut are not those of the processor")


def measure_pixels(model: Any, processor: Any, clip: Clip, repeats: int) -> dict[str, Any]:
    """Times and memory of each way, how many values all patches have, and how many tokens they are."""
    device = model.device
    found = {name: measure(make, device, 1, repeats) for name, make in ways_of(model, processor, clip)}
    pixels = processor_inputs(processor, clip, chat_text(processor, QUESTION))[VIDEOS]
    return {"values": pixels.numel(), "tokens": len(pixels) // PATCHES, "ways": found}
