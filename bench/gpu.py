"""Times everything on the current GPU at 40,000 x 3584 bfloat16: ``python bench/gpu.py OUT.json``.

Every row is timed with CUDA events over a run of calls on rotating inputs, larger together than the L2 cache, after a
warm-up; the median of several runs counts. `ms` is as Python calls it, `graph_ms` the same calls replayed from a CUDA
graph, without the launches' cost. `bytes` are what a job cannot do without moving. bench/gpu_report.py makes the
results file of `make gpu` of it.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import score_ext
from score_video.provenance import circumstances

FRAMES, PER_FRAME, WIDTH = 64, 625, 3584
LENGTH = FRAMES * PER_FRAME
KEEP = LENGTH // 10
SAMPLES = 8
TOKEN_INPUTS = 4  # of 287 MB each
SCORE_INPUTS = 512  # of 160 KB each

Row = dict[str, Any]


# ---- timing ---------------------------------------------------------------------------------------------------------


def milliseconds(run: Callable[[], None], calls: int, repeats: int = 15) -> float:
    """Median time of one of the `calls` calls that run() makes."""
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / calls)
    return statistics.median(times)


def measured(function: Callable[..., Any], inputs: Sequence[tuple[Any, ...]], graph: bool = True) -> Row:
    """`ms` and, where the function can be captured, `graph_ms` of calls over all inputs in turn."""

    def run() -> None:
        for arguments in inputs:
            function(*arguments)

    row: Row = {"ms": milliseconds(run, len(inputs))}
    if graph:
        torch.cuda.synchronize()
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            run()
        row["graph_ms"] = milliseconds(captured.replay, len(inputs))
    torch.cuda.empty_cache()
    return row


# ---- baselines ------------------------------------------------------------------------------------------------------


def torch_surprise(tokens: Tensor) -> Tensor:
    """With torch's own cosine_similarity, as most code writes it."""
    video = tokens.view(FRAMES, PER_FRAME, WIDTH)
    similarity = torch.nn.functional.cosine_similarity(video[1:].float(), video[:-1].float(), dim=-1)
    return torch.cat([similarity.new_full((1, PER_FRAME), math.inf), 1 - similarity]).view(-1)


def torch_surprise_sums(tokens: Tensor) -> Tensor:
    """The same from three sums, each norm only once: easier to fuse."""
    video = tokens.view(FRAMES, PER_FRAME, WIDTH).float()
    products = (video[1:] * video[:-1]).sum(-1)
    squares = video.square().sum(-1)
    similarity = products / (squares[1:] * squares[:-1]).sqrt()
    return torch.cat([similarity.new_full((1, PER_FRAME), math.inf), 1 - similarity]).view(-1)


def torch_select(scores: Tensor) -> Tensor:
    return scores.topk(KEEP, sorted=False).indices.sort().values


def torch_gumbel_topk(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Gumbel top-k, SAMPLES times."""
    gumbel = -torch.log(torch.empty(SAMPLES, LENGTH, device=logits.device).exponential_())
    order = (logits + gumbel).topk(KEEP).indices
    return order.sort().values, order


def torch_compress(tokens: Tensor, surprise: Callable[[Tensor], Tensor]) -> Tensor:
    return tokens.index_select(0, torch_select(surprise(tokens)))


def engine_compress(tokens: Tensor) -> Tensor:
    """Argsort, a boolean mask of what is kept, and indexing with it: the rule as serving engines write it."""
    order = torch.argsort(torch_surprise(tokens), descending=True, stable=True)
    mask = torch.zeros(LENGTH, dtype=torch.bool, device=tokens.device)
    mask[order[:KEEP]] = True
    return tokens[mask]


# ---- measuring ------------------------------------------------------------------------------------------------------


def video(seed: int) -> Tensor:
    """A video in which half of the places stand still but for small noise, bfloat16 [LENGTH, WIDTH]."""
    random = torch.Generator(device="cuda").manual_seed(seed)
    still = torch.randn(PER_FRAME, WIDTH, device="cuda", generator=random)
    tokens = still + 0.05 * torch.randn(FRAMES, PER_FRAME, WIDTH, device="cuda", generator=random)
    tokens[:, ::2] += torch.randn(FRAMES, (PER_FRAME + 1) // 2, WIDTH, device="cuda", generator=random)
    return tokens.view(LENGTH, WIDTH).bfloat16()


def int32(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.int32, device="cuda")


class Measurements:
    """The rows; `job` is what is done, `variant` who does it."""

    def __init__(self) -> None:
        self.rows: list[Row] = []

    def add(
        self, job: str, variant: str, function: Callable[..., Any], inputs: Sequence[tuple[Any, ...]],
        moved: int | None = None, graph: bool = True,
    ) -> None:  # fmt: skip
        row: Row = {"job": job, "variant": variant, **({"bytes": moved} if moved else {})}
        try:
            row.update(measured(function, inputs, graph))
        except Exception as error:
            if variant.startswith("ours"):
                raise
            row["failed"] = str(error).partition("\n")[0]  # a rival that does not run here is no reason to stop
        self.rows.append(row)
        print(json.dumps(row), flush=True)

    def add_compiled(
        self, job: str, name: str, function: Callable[..., Any], inputs: Sequence[tuple[Any, ...]],
        moved: int | None = None, modes: Sequence[str] = ("default",),
    ) -> None:  # fmt: skip
        for mode in modes:
            torch._dynamo.reset()
            compiled = torch.compile(function, fullgraph=True, mode=mode)
            self.add(job, f"compile {name}, {mode}", compiled, inputs, moved)


FORMULAS = (torch_surprise, torch_surprise_sums)


def measure_copy(to: Measurements) -> None:
    one, other = (torch.randint(0, 255, (2**30,), dtype=torch.uint8, device="cuda") for _ in range(2))
    to.add("copy", "torch", lambda source, target: target.copy_(source), [(one, other), (other, one)], 2 * 2**30)


def measure_over_tokens(to: Measurements) -> None:
    tokens = [(video(seed),) for seed in range(TOKEN_INPUTS)]
    token_bytes, kept_bytes = LENGTH * WIDTH * 2, KEEP * WIDTH * 2
    cu, frames, keep = int32(0, LENGTH), int32(PER_FRAME), int32(KEEP)

    moved = token_bytes + LENGTH * 4
    to.add("surprise", "ours", lambda x: score_ext.surprise(x, cu, frames), tokens, moved)
    to.add("surprise", "ours, l2", lambda x: score_ext.surprise(x, cu, frames, "l2"), tokens, moved)
    for formula in FORMULAS:
        to.add("surprise", f"eager {formula.__name__}", formula, tokens, moved)
        modes = ("default", "max-autotune-no-cudagraphs")
        to.add_compiled("surprise", formula.__name__, formula, tokens, moved, modes)

    indices = [torch.randperm(LENGTH, device="cuda")[:KEEP].sort().values for _ in range(8)]
    gathers = [(tokens[number % TOKEN_INPUTS][0], index) for number, index in enumerate(indices)]
    to.add("gather", "ours", score_ext.gather, gathers, 2 * kept_bytes + KEEP * 8)
    to.add("gather", "torch index_select", lambda x, i: x.index_select(0, i), gathers, 2 * kept_bytes + KEEP * 8)

    moved = token_bytes + kept_bytes
    to.add("compress", "ours", lambda x: score_ext.compress(x, cu, frames, keep, KEEP), tokens, moved)
    systematic = [(x.float()[:, 0].contiguous(),) for (x,) in tokens]
    to.add(
        "compress", "ours, scores given, systematic",
        lambda x, s: score_ext.compress(x, cu, frames, keep, KEEP, scores=s, selection="systematic"),
        [(x, s) for (x,), (s,) in zip(tokens, systematic, strict=True)], 2 * kept_bytes,
    )  # fmt: skip
    for formula in FORMULAS:

        def rule(x: Tensor, formula: Callable[[Tensor], Tensor] = formula) -> Tensor:
            return torch_compress(x, formula)

        to.add("compress", f"eager {formula.__name__}", rule, tokens, moved)
        to.add_compiled("compress", formula.__name__, rule, tokens, moved)
    to.add("compress", "engine rule", engine_compress, tokens, moved, graph=False)


def measure_over_scores(to: Measurements) -> None:
    scores = [(torch.randn(LENGTH, device="cuda"),) for _ in range(SCORE_INPUTS)]
    cu, keep, seed = int32(0, LENGTH), int32(KEEP), torch.tensor([7], device="cuda")
    for selection in ("topk", "systematic"):
        to.add(
            "select",
            f"ours, {selection}",
            lambda s, selection=selection: score_ext.select(s, cu, keep, KEEP, selection=selection),
            scores,
        )
    to.add("select", "eager topk + sort", torch_select, scores)
    to.add_compiled("select", "topk + sort", torch_select, scores)
    few = scores[:64]
    to.add(f"gumbel_topk x{SAMPLES}", "ours", lambda s: score_ext.gumbel_topk(s, cu, keep, SAMPLES, seed, KEEP), few)
    to.add(f"gumbel_topk x{SAMPLES}", "eager topk + sort", torch_gumbel_topk, few)
    to.add(
        f"gumbel_topk_with_log_prob x{SAMPLES}",
        "ours",
        lambda s: score_ext.gumbel_topk_with_log_prob(s, cu, keep, SAMPLES, seed, KEEP),
        few,
    )


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: python bench/gpu.py OUT.json")
    if not (torch.cuda.is_available() and score_ext.cuda_library_loaded()):
        sys.exit("bench/gpu.py: needs a GPU and the CUDA kernels (SCORE_CUDA=ON)")
    measurements = Measurements()
    for measure in (measure_copy, measure_over_tokens, measure_over_scores):
        measure(measurements)
        torch.cuda.empty_cache()
    properties = torch.cuda.get_device_properties(0)
    results = {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        **circumstances("torch"),
        "cuda": torch.version.cuda,
        "build": score_ext.build_info(),
        "shape": f"{FRAMES} x {PER_FRAME} tokens of width {WIDTH}, bfloat16, {KEEP} kept",
        "rows": measurements.rows,
    }
    Path(sys.argv[1]).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
