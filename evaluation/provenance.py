"""Where and with what results were made."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from pathlib import Path

import torch
import transformers

import score_ext

ROOT = Path(__file__).parent.parent


def provenance() -> dict[str, str | int]:
    """Processor, cores, date, versions and commit; no host name. A "+" says that files differed from the commit."""
    cpu = next(
        line.split(":")[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    )
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 1,
        "date": str(datetime.date.today()),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "score": score_ext.__version__,
        "commit": _git("rev-parse", "--short=10", "HEAD") + ("+" if _git("status", "--porcelain", "-uno") else ""),
    }


def _git(*command: str) -> str:
    try:
        done = subprocess.run(["git", *command], cwd=ROOT, text=True, capture_output=True)
    except FileNotFoundError:
        return "?"
    return done.stdout.strip() if done.returncode == 0 else "?"
