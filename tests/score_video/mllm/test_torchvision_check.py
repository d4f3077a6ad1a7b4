"""What the user reads where torchvision is missing or of another torch: real ones, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ASIDE = Path(sys.prefix) / "torchvision"


def ask(*folders: Path) -> str:
    """What ``score ask`` says with these folders of packages."""
    done = subprocess.run(
        [sys.executable, "-m", "score_video.cli", "ask", "video.mp4", "What?", "--model", "model"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (ROOT / "python", *folders)))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("score: error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def importable() -> bool:
    code = "import importlib.util; raise SystemExit(importlib.util.find_spec('torchvision') is None)"
    return subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": ""}).returncode == 0


@pytest.mark.skipif(importable(), reason="torchvision is installed here")
def test_missing() -> None:
    assert "need torchvision, which is not installed: install the torchvision that belongs to torch 2." in ask()


def test_of_another_torch(tmp_path: Path) -> None:
    """As PyPI's beside a CPU torch: it asks for ops that are not there."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "import torch\ntorch.library.register_fake('torchvision_of_another::nms')(lambda x: x)\n"
    )
    assert "does not load beside torch 2." in ask(tmp_path)


@pytest.mark.skipif(not ASIDE.is_dir() or importable(), reason="PyPI's torchvision is not beside a CPU torch here")
def test_pypis_beside_a_cpu_torch() -> None:
    said = ask(ASIDE)
    assert "torchvision 0." in said
    assert "does not load beside torch 2." in said
    assert "torchvision::nms" in said
