"""Imports of the package point one way: a room may use those on lower floors, and no rooms stand in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import score_video

ROOT = Path(score_video.__file__).parent

FLOORS = (
    {
        *("checks", "command_line", "errors", "statistics", "files", "packed", "progress", "provenance", "renamed"),
        "whitened",
    },
    {"before_tower", "diverse", "methods", "policy", "retention", "saved_compressor", "thumbnails", "video"},
    {"compressor"},
    {"composite", "drawing", "miniature", "mllm", "rl"},
    {"app", "benchmarks", "commands", "evaluation_harness", "serving", "testing"},
    {"cli"},
    # other names of modules, for one release; and the front door, which loads what is asked of it
    {"change", "clip", "relative_state", "saved_policy", "score_video"},
)
"""From the ground up: the modules and packages of ``score_video``. Rooms of one floor may use each other."""

UPWARDS = {
    # compressor(model, **inputs) and compressor.wrap(model), for short
    ("score_video.compressor", "score_video.mllm.adapter"),
    ("score_video.compressor", "score_video.mllm.compress"),
    ("score_video.compressor", "score_video.mllm.wrapping"),
}

Arrow = tuple[str, str]


def name_of(path: Path, root: Path) -> str:
    parts = [root.name, *path.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, root: Path, modules: set[str]) -> Iterator[tuple[str, bool]]:
    """Modules of the package that a file imports, and whether it does as it is loaded, not in a function or for types
    alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    later = {
        id(node)
        for parent in ast.walk(tree)
        if isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef)) or _is_for_types(parent)
        for node in ast.walk(parent)
    }
    name, package = name_of(path, root), name_of(path.parent / "__init__.py", root)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == root.name
    }
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names if alias.name != root.name or used != {"__version__"}]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join(
                    [*package.split(".")[: len(package.split(".")) - node.level + 1], *filter(None, [base])]
                )
            # __version__ is there before anything is loaded; other names of the front door stand for modules
            members = [
                f"{base}.{alias.name}" for alias in node.names if (base, alias.name) != (root.name, "__version__")
            ]
            found = [member if member in modules else base for member in members]
        for module in found:
            if module in modules and module != name:
                yield module, id(node) not in later


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def arrows(root: Path) -> tuple[set[Arrow], set[Arrow]]:
    """All imports, (from, to), and those of them that happen as a module is loaded."""
    files = {name_of(path, root): path for path in sorted(root.rglob("*.py"))}
    everything, loading = set(), set()
    for name, path in files.items():
        for module, at_once in imported(path, root, set(files)):
            everything.add((name, module))
            if at_once:
                loading.add((name, module))
    return everything, loading


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else module


def circle(found: set[Arrow]) -> list[str]:
    """One, from its beginning back to it; empty: there is none."""
    targets: dict[str, list[str]] = {}
    for a, b in sorted(found):
        targets.setdefault(a, []).append(b)
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for target in targets.get(name, ()):
            if around := visit(target, [*way, name]):
                return around
        done.add(name)
        return []

    return next((around for name in sorted(targets) if (around := visit(name, []))), [])


def complaints(root: Path) -> list[str]:
    floor_of = {name: number for number, floor in enumerate(FLOORS) for name in floor}
    everything, loading = arrows(root)
    modules = {name_of(path, root) for path in root.rglob("*.py")}
    strangers = sorted({room(module) for module in modules} - set(floor_of))
    said = [f"{name} has no floor: give it one in FLOORS" for name in strangers]
    if strangers:
        return said
    said += [
        f"{a} imports {b}, which stands above it"
        for a, b in sorted(everything - UPWARDS)
        if floor_of[room(a)] < floor_of[room(b)]
    ]
    said += [f"{a} imports {b} no more: take it from UPWARDS" for a, b in sorted(UPWARDS - everything)]
    rooms = {(room(a), room(b)) for a, b in everything - UPWARDS if room(a) != room(b)}
    for kind, found in (("rooms", rooms), ("modules", loading)):
        if around := circle(found):
            said.append(f"{kind} in a circle: {' -> '.join(around)}")
    return said


def test_arrows() -> None:
    assert complaints(ROOT) == []


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"packed.py": "from score_video.mllm import adapter"}, "score_video.packed imports score_video.mllm.adapter,"),
        ({"packed.py": "def f():\n    import score_video.cli"}, "score_video.packed imports score_video.cli, which"),
        ({"policy/a.py": "from ..cli import main"}, "score_video.policy.a imports score_video.cli, which stands above"),
        ({"policy/a.py": "from .b import x", "policy/b.py": "from . import a"}, "modules in a circle: score_video.po"),
        ({"mllm/a.py": "from score_video.rl import x", "rl/a.py": "import score_video.mllm.a"}, "rooms in a circle: m"),
        ({"attic.py": ""}, "attic has no floor"),
        ({"mllm/a.py": "import score_video\nscore_video.read_frames"}, "score_video.mllm.a imports score_video, which"),
        ({"mllm/a.py": "from score_video import Compressor, __version__"}, "score_video.mllm.a imports score_video, w"),
    ],
)
def test_what_is_found(files: dict[str, str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_arrows.UPWARDS", set())
    rooms = ("", "mllm/", "policy/", "rl/")
    for name, text in {**{f"{r}__init__.py": "" for r in rooms}, "cli.py": "", "mllm/adapter.py": "", **files}.items():
        path = tmp_path / "score_video" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert [said[: len(says)] for said in complaints(tmp_path / "score_video")] == [says]
