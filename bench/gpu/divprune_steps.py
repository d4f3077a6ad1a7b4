"""How long the busiest warp of csrc/cuda/divprune.cu computes for each token that is taken: a simulation, no GPU.

    python -m bench.gpu.divprune_steps [FRAMES TOKENS WIDTH]

What each warp must compare, and what it may while others are busy, as the kernel decides it; all warps of a step go in
turns of one comparison. A round is two products, which a warp computes side by side. The predictions of
bench/gpu/predictions.json rest on it.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from torch import Tensor

MULTIPROCESSORS, WARPS, TOKENS_PER_BLOCK, BATCH = 132, 32, 64, 16  # of an H100; as in the kernel
SIZES = ((4, 324, 384), (32, 256, 512))


def directions(frames: int, per_frame: int, width: int) -> Tensor:
    """Of a video in which half of the places stand still but for small noise, as those that are timed."""
    random = torch.Generator().manual_seed(0)
    still = torch.randn(per_frame, width, generator=random)
    tokens = still + 0.05 * torch.randn(frames, per_frame, width, generator=random)
    tokens[:, ::2] += torch.randn(frames, (per_frame + 1) // 2, width, generator=random)
    return torch.nn.functional.normalize(tokens.flatten(0, 1), dim=1)


def rounds_per_step(units: Tensor, keep: int, spare: int, shared_bound: bool = True) -> float:
    """Means over steps: rounds of the busiest warp. Each does at least `spare` where there is work."""
    length = len(units)
    blocks = min(MULTIPROCESSORS, 1 + -(-length // TOKENS_PER_BLOCK))
    warps = blocks * WARPS
    rows = -(-length // warps)
    nearest = np.full(rows * warps, 3.0, np.float32)
    nearest[length:] = -1
    compared = np.zeros(rows * warps, np.int64)
    distances = np.zeros((keep, rows * warps), np.float32)
    warp, total = np.arange(warps), 0
    latest = int((units @ units.mean(0)).argmin())
    for taken in range(1, keep):
        nearest[latest] = -1
        distances[taken - 1, :length] = (1 - units @ units[latest]).clamp_min(0).numpy()
        best, spent = np.full(warps, -1.0, np.float32), np.zeros(warps, np.int64)
        while True:
            bound = nearest.reshape(rows, warps)
            leader = bound.argmax(0) * warps + warp
            known = compared[leader] == taken
            best[known] = nearest[leader][known]
            others = best.reshape(blocks, WARPS).max(1).repeat(WARPS) if shared_bound else best
            needed = ~known & (nearest[leader] > others)
            late = np.where(compared.reshape(rows, warps) < taken, bound, -1.0).argmax(0) * warps + warp
            busy = needed | ((spent < spare) & (compared[late] < taken) & (nearest[late] >= 0))
            if not busy.any():
                break
            for number in np.nonzero(busy)[0]:
                row = late[number]
                begin, most = compared[row], BATCH if needed[number] else 2 * (spare - spent[number])
                end = min(begin + most, taken)
                nearest[row] = min(nearest[row], distances[begin:end, row].min())
                compared[row] = end
                spent[number] += (end - begin + 1) // 2
        total += spent.max()
        latest = int(nearest.argmax())
    return total / (keep - 1)


def main() -> None:
    given = tuple(int(argument) for argument in sys.argv[1:])
    for size in [given] if given else SIZES:
        units = directions(*size)
        keep = len(units) // 10
        print(f"{len(units)} x {size[2]}, {keep} kept; rounds of the busiest warp for each:")
        print(f"  as the kernel does: {rounds_per_step(units, keep, spare=4):.1f}", flush=True)
        print(f"  without spare rounds: {rounds_per_step(units, keep, spare=0):.1f}", flush=True)
        print(f"  nor a shared bound: {rounds_per_step(units, keep, spare=0, shared_bound=False):.1f}", flush=True)


if __name__ == "__main__":
    main()
