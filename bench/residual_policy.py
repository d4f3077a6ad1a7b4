"""One thread's time of the policy over tokens, 10 frames of 14 x 14 tokens of 3,584: for two versions in alternation.

    git worktree add ../old 0ef8826   # 0.1.0, before the kernels of 0.2
    pip install --no-build-isolation --no-deps --target ../old/site ../old
    packages=$(python -c "import sysconfig; print(sysconfig.get_path('purelib'))")
    for round in 1 2 3 4 5; do
      PYTHONSAFEPATH=1 PYTHONPATH=../old/site:$packages python -S bench/residual_policy.py
      PYTHONSAFEPATH=1 python bench/residual_policy.py
    done

With -S an editable install of today's version does not go before the old one; each line says which version it is of.
Prints the median, which is a figure only on a machine that does nothing else.
"""

from __future__ import annotations

import itertools
import statistics
import time

import torch

import score_ext

FRAMES, PER_FRAME, WIDTH, HIDDEN, ROUNDS = 10, 196, 3584, 64, 31


def main() -> None:
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    tokens = torch.randn(FRAMES * PER_FRAME, WIDTH, generator=random).bfloat16()
    sizes = torch.tensor([0, len(tokens)], dtype=torch.int32), torch.tensor([PER_FRAME], dtype=torch.int32)
    widths = (2 * WIDTH, HIDDEN, HIDDEN, 1)
    layers = [
        (torch.randn(to, of, generator=random) * of**-0.5, torch.zeros(to)) for of, to in itertools.pairwise(widths)
    ]
    for dtype in (torch.float32, torch.bfloat16):
        given = [(weight.to(dtype), bias.to(dtype)) for weight, bias in layers]
        times = []
        with torch.inference_mode():
            for _ in range(ROUNDS):
                begin = time.perf_counter()
                score_ext.policy_logits(tokens, *sizes, given)
                times.append(time.perf_counter() - begin)
        print(f"score_ext {score_ext.__version__}, weights {dtype}: {statistics.median(times) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
