"""Peak memory: compress needs next to nothing beside its input and output, measured in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.unsanitized,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from Linux's /proc"),
]

# 180 MB of tokens. Filled in place, so that nothing before the call has peaked above what is resident then; a small
# call first, for threads and lazy initialisation.
PROGRAM = """
import re, sys, torch, score_ext
from pathlib import Path

def status(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

def run(frames, op):
    length = frames * 196
    tokens = torch.empty(length, 3584, dtype=getattr(torch, sys.argv[2])).uniform_()
    packed = torch.tensor([0, length], dtype=torch.int32), torch.tensor([196], dtype=torch.int32)
    keep = length // 10
    budget = torch.tensor([keep], dtype=torch.int32)
    layers = [(torch.zeros(64, 7168), torch.zeros(64)), (torch.zeros(1, 64), torch.zeros(1))]
    before = status("VmRSS")
    if op == "relative_logits":
        small = [(torch.zeros(64, 64), torch.zeros(64)), (torch.zeros(1, 64), torch.zeros(1))]
        result = score_ext.relative_logits(tokens, *packed, torch.tensor([14], dtype=torch.int32), frames, small)
    elif op == "policy_logits":
        result = score_ext.policy_logits(tokens, *packed, layers)
    else:
        result = score_ext.compress(tokens, *packed, budget, keep, selection=op)[0]
    extra = status("VmHWM") - before
    return extra, sum(x.numel() * x.element_size() for x in (tokens, result)), result.numel() * result.element_size()

run(2, sys.argv[1])
extra, both, result = run(int(sys.argv[3]), sys.argv[1])
print(extra - result, both)
"""


@pytest.mark.parametrize(
    ("op", "dtype", "frames", "share"),
    [
        ("topk", "float32", 64, 0.01),
        ("systematic", "bfloat16", 128, 0.01),
        ("relative_logits", "bfloat16", 128, 0.06),  # sums of directions, products and measures of every token
        ("policy_logits", "float32", 64, 0.2),  # some blocks of the state, which is twice as large as the tokens
    ],
)
def test_peak_beside_input_and_output(op: str, dtype: str, frames: int, share: float) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, op, dtype, str(frames)], capture_output=True, text=True, check=True, timeout=300
    )
    extra, both = map(int, done.stdout.split())
    assert both > 170e6
    assert extra < share * both, f"{extra / 2**20:.2f} MiB beside {both / 2**20:.0f} MiB of input and output"
    # Pages of the result count as they are written: that they were is what makes the difference above meaningful.
    assert extra > -0.01 * both
