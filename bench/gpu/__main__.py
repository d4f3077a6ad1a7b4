"""Times everything on the current GPU: ``python -m bench.gpu MEASUREMENTS.json``.

Every row is timed with CUDA events over a run of calls on rotating inputs, larger together than the L2 cache, after a
warm-up; the median of several runs counts. `ms` is as Python calls it, `graph_ms` the same calls replayed from a CUDA
graph, without the launches' cost. `bytes` are what a job cannot do without moving. What is compared with ours is looked
at first: it must do the same. Stopped, the same command goes on where it was; bench/gpu/report.py makes the results
file of `make gpu` of the measurements.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

import score_ext
from bench.gpu.jobs import FRAMES, JOBS, KEEP, PER_FRAME, WIDTH
from bench.gpu.timing import Measurements
from score_video.provenance import circumstances


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python -m bench.gpu MEASUREMENTS.json")
    if not (torch.cuda.is_available() and score_ext.cuda_library_loaded()):
        sys.exit("bench.gpu: needs a GPU and the CUDA kernels (SCORE_CUDA=ON)")
    properties = torch.cuda.get_device_properties(0)
    run = {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        **circumstances("torch"),
        "cuda": torch.version.cuda,
        "build": score_ext.build_info(),
        "shape": f"{FRAMES} x {PER_FRAME} tokens of width {WIDTH}, bfloat16, {KEEP} kept",
    }
    to = Measurements(Path(sys.argv[1]), run)
    failed = []
    for measure in JOBS:
        try:
            measure(to)
        except Exception as error:  # what fails does not keep the other jobs from being timed
            failed.append(f"{measure.__name__}: {type(error).__name__}: {error}")
            print(failed[-1], file=sys.stderr)
        torch.cuda.empty_cache()
    if to.disagree:
        failed.append("a rival does something else than ours")
    if failed:
        sys.exit(f"bench.gpu: failed: {'; '.join(failed)}")


if __name__ == "__main__":
    main()
