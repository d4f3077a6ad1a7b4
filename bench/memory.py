"""Peak memory of one compress call beyond its input, in a process of its own; ``python -m bench.memory`` prints it."""

from __future__ import annotations

import json
from pathlib import Path

import torch

import score_ext
from bench.test_cpu import FRAMES, KEEP, PER_FRAME, VIDEO, WIDTH, int32


def resident(field: str) -> int:
    """A line of this process's memory status in bytes: VmRSS now, or VmHWM at its highest."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"the system does not report {field}")


def main() -> None:
    torch.set_num_threads(1)
    tokens = torch.randn(FRAMES * PER_FRAME, WIDTH)
    small = tokens[: 2 * PER_FRAME].clone()
    # Once on a little, so that what the first call loads is not counted.
    score_ext.compress(small, int32(0, 2 * PER_FRAME), int32(PER_FRAME), int32(1), 1)
    Path("/proc/self/clear_refs").write_text("5")  # the highest mark starts again from here
    before = resident("VmRSS")
    kept, _index, _cu_kept = score_ext.compress(tokens, *VIDEO, int32(KEEP), KEEP)
    extra = resident("VmHWM") - before
    print(json.dumps({"input": tokens.nbytes, "output": kept.nbytes, "extra": extra}))


if __name__ == "__main__":
    main()
