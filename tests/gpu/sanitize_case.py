"""Runs every kernel once on small batches and compares with the CPU: for compute-sanitizer.

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python tests/gpu/sanitize_case.py

Without torch's cache every tensor is an allocation of its own, so that a step outside of one is seen. Inputs are made
on the CPU and results compared there: hardly any kernel but ours runs.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path += [str(Path(__file__).parent), str(Path(__file__).parents[1] / "score_ext")]

from batches import LAYOUTS, Layout, generator, int32, int64
from cases import OPS, call, op_arguments
from devices import assert_agree, moved

import score_ext

LAYOUTS_TO_RUN = (LAYOUTS["ragged"], LAYOUTS["with_empty"], Layout(((30, 150), (2, 700))))


def run_every_op() -> None:
    for layout in LAYOUTS_TO_RUN:
        arguments = op_arguments(layout)
        for op in OPS:
            if op != "policy_logits":  # beside policy_state, which has its turn, that is torch's own products
                assert_agree(op, call(op, moved(arguments[op])), call(op, arguments[op]))


def run_widths() -> None:
    layout = LAYOUTS["ragged"]
    for width in (8, 24, 257, 3584, 12_288):  # every number of vectors per thread, and the loop
        for dtype in (torch.bfloat16, torch.float32):
            batch = moved((layout.tokens(width, dtype), layout.cu_seqlens, layout.tokens_per_frame))
            for metric in ("cosine", "l2"):
                score_ext.surprise(*batch, metric=metric)
            score_ext.policy_state(*batch, None, 0, layout.length, dtype)


def run_teams() -> None:
    """Blocks that wait for each other: a video that is long enough for it, beside one that is not."""
    layout = Layout(((90, 100), (2, 700)))
    tokens, scores = layout.tokens(16, torch.bfloat16), layout.scores(0)
    packed = layout.cu_seqlens, int32(30, 5), 35
    for selection in ("topk", "systematic"):
        arguments = scores, *packed, selection
        assert_agree("select", (score_ext.select(*moved(arguments)),), (score_ext.select(*arguments),))
    arguments = scores, *packed[:2], 2, int64(1), 35
    assert_agree("gumbel_topk", score_ext.gumbel_topk(*moved(arguments)), score_ext.gumbel_topk(*arguments))
    arguments = tokens, *packed, True, scores.exp()
    assert_agree("divprune", (score_ext.divprune(*moved(arguments)),), (score_ext.divprune(*arguments),))


def run_wrong_values() -> None:
    tokens, scores = torch.randn(1000, 64, generator=generator(0)), torch.randn(1000, generator=generator(1))
    on_gpu, seed = moved((tokens, scores)), moved(int64(1))
    for cu in (int32(0, 500, 20, 1000), int32(-5, 7, 2_000_000_000, 60)):
        packed, frames = moved((cu, int32(-4, 2**31 - 1, 9))), moved(int32(0, -7, 2**31 - 1))
        for selection in ("topk", "systematic"):
            score_ext.select(on_gpu[1], *packed, 600, selection=selection)
            score_ext.compress(on_gpu[0], packed[0], frames, packed[1], 600, selection=selection)
        _, order = score_ext.gumbel_topk(on_gpu[1], *packed, 2, seed, 600)
        score_ext.plackett_luce_log_prob(on_gpu[1], *packed, order)
        torch.ops.score.plackett_luce_log_prob_backward(moved(torch.ones(2, 3)), on_gpu[1], *packed, order)
        score_ext.sample_bernoulli(on_gpu[1], packed[0], 2, seed)
        score_ext.divprune(on_gpu[0], *packed, 20)
        score_ext.policy_state(on_gpu[0], packed[0], frames, None, 0, 1000, torch.float32)
    score_ext.gather(on_gpu[0], moved(int64(-1, 1000, 2**62, 5)))


if __name__ == "__main__":
    if not (torch.cuda.is_available() and score_ext.cuda_library_loaded()):
        sys.exit("sanitize_case.py needs a GPU and the CUDA kernels")
    run_every_op()
    run_widths()
    run_teams()
    run_wrong_values()
    torch.cuda.synchronize()
    print("sanitize_case.py: every op ran")
