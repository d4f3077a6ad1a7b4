"""docs/serving.md against the code: its table of architectures, and its limits."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import asdict
from pathlib import Path

from score_video.serving.limits import Limits

ROOT = Path(__file__).parents[3]


def test_the_table_of_architectures() -> None:
    spec = importlib.util.spec_from_file_location("serving_table", ROOT / "tools" / "serving_table.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    text = tool.DOCS.read_text(encoding="utf-8")
    assert tool.with_table(text) == text
    assert tool.with_table(text.replace("| Qwen3.5 |", "| Qwen |")) == text


def test_the_limits() -> None:
    text = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", text, re.M))
    assert {name: int(value) for name, value in table.items()} == asdict(Limits())
