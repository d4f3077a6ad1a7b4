"""What docs/models.md shows runs, and its tables are those of the registry."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers
from packaging.version import Version

from score_video.testing import save_tiny_model

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_the_example(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchvision")
    save_tiny_model(tmp_path / "model", "qwen2_5_vl")
    first, later = (block for block in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "import" in block)
    first = first.replace("Qwen/Qwen2.5-VL-3B-Instruct", str(tmp_path / "model")).replace("clip.mp4", str(clip))
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(first, "models.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()[-1]
    kept, whole = map(int, re.fullmatch(r"\[(\d+)\] of \[(\d+)\] visual tokens kept", printed).groups())  # type: ignore[union-attr]
    assert kept == int(whole * 0.1)
    if Version(transformers.__version__) < Version("5.24.0"):
        later = later.replace("cache=answer.cache", "past_key_values=answer.past_key_values")
    exec(compile(later, "models.md, the next turn", "exec"), names)
    assert names["answer"].sequences.shape[1] > names["question"].shape[1] + 1


def test_the_tables_are_current() -> None:
    command = [sys.executable, str(ROOT / "tools" / "models_table.py"), "--check"]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stderr == ""
