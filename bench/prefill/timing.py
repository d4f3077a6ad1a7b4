"""Times and peak memory of a call, and which attention kernel of torch is the fastest for a prompt."""

from __future__ import annotations

import ctypes
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.memory import resident
from bench.prefill.geometry import Geometry

_CUDA_KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def seconds(function: Callable[[], Any], device: torch.device) -> float:
    """How long one call takes, what it queues on the device included."""
    if device.type == "cpu":
        begin = time.perf_counter()
        function()
        return time.perf_counter() - begin
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(device)
    first.record()
    function()
    last.record()
    last.synchronize()
    return first.elapsed_time(last) / 1e3


def measure(function: Callable[[], Any], device: torch.device, warmups: int, repeats: int) -> dict[str, Any]:
    """Calls ``warmups`` + ``repeats`` times. The last of the warm-ups is the one whose memory counts.

    Returns:
        ``seconds``, one for each repeat; ``peak_bytes``, all that was allocated at the highest point, weights included
        (CPU: of the process); ``extra_bytes``, by how much that is more than before the call.
    """
    for _ in range(warmups - 1):
        function()
    memory = _memory(function, device)
    return {"seconds": [seconds(function, device) for _ in range(repeats)], **memory}


def _memory(function: Callable[[], Any], device: torch.device) -> dict[str, int]:
    if device.type == "cpu":
        ctypes.CDLL(None).malloc_trim(0)  # glibc keeps freed blocks, which a call could use again unseen
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts again from here
        before = resident("VmRSS")
        function()
        peak = resident("VmHWM")
    else:
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        peak = torch.cuda.max_memory_allocated(device)
    return {"peak_bytes": peak, "extra_bytes": max(peak - before, 0)}


def attention_times(geometry: Geometry, prompt: int, device: torch.device) -> dict[str, float]:
    """Seconds of each of torch's kernels that can do causal attention over a prompt of this geometry; GPUs only."""
    text = geometry.text
    # laid out as the model does, token by token, then seen head by head
    query, key, value = (
        torch.randn(1, prompt, heads, geometry.head_dim, dtype=torch.bfloat16, device=device).transpose(1, 2)
        for heads in (text["num_attention_heads"], text["num_key_value_heads"], text["num_key_value_heads"])
    )

    def attend() -> None:
        torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)

    times = {}
    for name, backend in _CUDA_KERNELS.items():
        try:
            with sdpa_kernel([backend]), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # why a kernel does not do it: a page for each
                times[name] = min(measure(attend, device, warmups=1, repeats=3)["seconds"])
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # not for this GPU, head width or build of torch
            continue
    if not times:
        raise RuntimeError(f"no fused attention kernel runs on this GPU with heads of {geometry.head_dim} in bfloat16")
    return times


@contextmanager
def attention_kernel(name: str | None) -> Iterator[None]:
    """Inside, attention runs in this kernel and no other: where it can't, that is an error. None: torch's choice."""
    if name is None:
        yield
        return
    with sdpa_kernel([_CUDA_KERNELS[name]]):
        yield
