"""What docs/wrap.md shows runs, on a tiny model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import transformers
from packaging.version import Version

from score_video.testing import save_tiny_model

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "wrap.md").read_text(encoding="utf-8")


def test_the_examples(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torchvision")
    save_tiny_model(tmp_path / "model", "qwen2_5_vl")
    first, later = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    first = first.replace("Qwen/Qwen2.5-VL-3B-Instruct", str(tmp_path / "model")).replace("clip.mp4", str(clip))
    if Version(transformers.__version__) < Version("5.24.0"):
        later = later.replace("cache=first.cache", "past_key_values=first.past_key_values")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(first, "wrap.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()[-1]
    assert re.match(r"(9|10)\.\d% of the visual tokens kept; milliseconds: \{'vision tower': ", printed)
    exec(compile(later, "wrap.md, later turns", "exec"), names)
    assert names["second"].shape[1] > names["ids"].shape[1]
    assert "generate" not in names["model"].__dict__
