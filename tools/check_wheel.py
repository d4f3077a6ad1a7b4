"""Tries an installed wheel, with torch and nothing else: `python tools/check_wheel.py`, outside of the repository.

Looks that the ops were loaded from the environment's own packages, that no library of torch came along with them, and
that each kernel gives what the plain torch reference gives. One line says so; anything else ends with status 1.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
import sysconfig
from pathlib import Path

import torch

import score_ext
from score_ext import reference


def check_files() -> None:
    """The package is the installed one, and carries its own libraries alone."""
    packages = Path(sysconfig.get_path("platlib"))
    folder = Path(score_ext.__file__).parent
    if folder.parent != packages:
        sys.exit(f"error: score_ext was imported from {folder}, not from {packages}")
    files = importlib.metadata.files("score-video") or []
    libraries = {file.name.split(".")[0] for file in files if ".so" in file.name}
    if strangers := libraries - {"_ops", "_ops_cuda", "_native"}:
        sys.exit(f"error: the wheel carries libraries that are not its own: {', '.join(sorted(strangers))}")


def check_ops() -> None:
    """Two videos of different sizes through every step: scores, policy, choice and the whole path."""
    generator = torch.Generator().manual_seed(0)
    cu_seqlens = torch.tensor([0, 60, 84], dtype=torch.int32)
    tokens_per_frame = torch.tensor([12, 6], dtype=torch.int32)
    keep = torch.tensor([7, 5], dtype=torch.int32)
    for dtype in (torch.float32, torch.bfloat16):
        tokens = torch.randn(84, 40, generator=generator).to(dtype)
        scores = score_ext.surprise(tokens, cu_seqlens, tokens_per_frame)
        torch.testing.assert_close(scores, reference.surprise(tokens, cu_seqlens, tokens_per_frame))
        index = score_ext.select(scores, cu_seqlens, keep, 12)
        assert torch.equal(index, reference.select(scores, cu_seqlens, keep, 12))
        kept, chosen, cu_kept = torch.ops.score.compress(tokens, cu_seqlens, tokens_per_frame, keep, 12)
        assert torch.equal(chosen, index)
        assert torch.equal(kept, score_ext.gather(tokens, index))
        assert cu_kept.tolist() == [0, 7, 12]


if __name__ == "__main__":
    check_files()
    check_ops()
    where = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"score-video {importlib.metadata.version('score-video')}: the ops run under {where}")
