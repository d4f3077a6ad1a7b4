"""Descriptions of arguments say what they are, and are no bare preposition ("folder: where.")."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import score_ext
import score_video

ROOTS = (Path(score_video.__file__).parent, Path(score_ext.__file__).parent)
ENTRY = re.compile(r"^\s+(?P<names>[a-z_*]\w*(?:, [a-z_*]\w*)*): (?P<said>\S.*)$")
BARE = re.compile(r"(of|for|by|from|in|at|on|to|with|it|where|which|whose)\b(\W+\w+){0,2}\W*$", re.IGNORECASE)


def entries(text: str) -> Iterator[tuple[str, str]]:
    """(names, first line of the description) of what stands under Args and Attributes."""
    inside = False
    for line in text.splitlines():
        if line.strip() in ("Args:", "Attributes:"):
            inside = True
        elif not line.strip():
            inside = False
        elif inside and (found := ENTRY.match(line)):
            yield found["names"], found["said"]


def bare(text: str) -> list[str]:
    return [f"{names}: {said}" for names, said in entries(text) if BARE.match(said)]


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        ("choose: it.", True),
        ("folder: where.", True),
        ("dtype: of the model.", True),
        ("name: for people.", True),
        ("device: where the model runs.", False),
        ("folder: path of the folder to create.", False),
        ("keep: int32 [B], how many tokens each video keeps.", False),
    ],
)
def test_what_is_found(line: str, refused: bool) -> None:
    assert bool(bare(f"Does.\n\n    Args:\n        {line}\n")) == refused


def test_no_description_is_a_bare_preposition() -> None:
    found = []
    for root in ROOTS:
        for path in sorted(root.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                    text = ast.get_docstring(node, clean=False) or ""
                    found += [f"{path}: {node.name}: {said}" for said in bare(text)]
    assert found == []
