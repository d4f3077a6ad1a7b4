"""A training that is killed, in a process of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from score_video.rl import checkpoint
from score_video.rl.trainer import ScoreTrainer


def killed_after(step: int, run: ScoreTrainer) -> None:
    keep = checkpoint.keep_latest

    def and_die(*arguments: Any) -> None:
        keep(*arguments)
        if run.state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.keep_latest = and_die
    run.train()


def in_a_child(work: Callable[[], object]) -> None:
    """Runs it in a fork of this process, which it kills."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
