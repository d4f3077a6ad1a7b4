"""The helpers of tests/score_ext on a GPU: its cases, moved there, and how results compare with the CPU's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

CUDA = torch.device("cuda")
# Results of these ops must be the CPU's to the bit; by their place among the op's results.
EXACT = {
    "select": (0,),
    "divprune": (0,),
    "gumbel_topk": (0, 1),
    "gumbel_topk_with_log_prob": (0,),
    "sample_bernoulli": (0, 2),
    "gather": (0,),
    "kept_offsets": (0,),
    "compress": (0, 1, 2),
}
# How far results may be from the CPU's where that is more than rounding: a score is a difference of measures over at
# least 1e-3, and a cosine to the frame's mean is itself rounding where that is the video's.
ABSOLUTE = {"relative_state": 2e-2, "relative_logits": 2e-2}


def moved(value: Any, device: torch.device = CUDA) -> Any:
    """Tensors, and dicts and tuples of them, on the device; anything else as it is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: moved(each, device) for name, each in value.items()}
    if isinstance(value, tuple):
        return tuple(moved(each, device) for each in value)
    return value


def assert_agree(op: str, found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    """`found` on any device equals `expected` on the CPU, as exactly as the op promises."""
    assert len(found) == len(expected)
    for place, (mine, cpu) in enumerate(zip(moved(found, torch.device("cpu")), expected, strict=True)):
        if place in EXACT.get(op, ()):
            assert torch.equal(mine, cpu), f"{op}: result {place} differs from the CPU's"
        else:
            torch.testing.assert_close(mine, cpu, rtol=2e-4, atol=ABSOLUTE.get(op, 2e-5), equal_nan=True)
