"""Random arguments for every op, in a process of its own, so that a crash is a failure and not the end of the tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CALLS = 1000


@pytest.mark.parametrize("seed", range(2))
def test_bad_arguments_raise_and_never_crash(seed: int) -> None:
    program = Path(__file__).with_name("fuzz_ops.py")
    done = subprocess.run(
        [sys.executable, str(program), str(seed), str(CALLS)], capture_output=True, text=True, timeout=600, check=False
    )
    last = "\n".join(done.stderr.splitlines()[-30:])
    assert done.returncode == 0, f"fuzz_ops.py {seed} {CALLS} ended with {done.returncode}; its last calls:\n{last}"
    accepted = int(done.stdout)
    assert CALLS // 10 < accepted < CALLS  # the fuzzer reaches behind the checks, and is not always let through
