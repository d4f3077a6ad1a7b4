"""Links in the repository's documents lead to files and headings that there are, on GitHub and on the site."""

from __future__ import annotations

import importlib.util
import posixpath
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).parent.parent


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


pages = _load(ROOT / "tools" / "site" / "pages.py")
DOCUMENTS = sorted(
    str(path.relative_to(ROOT))
    for pattern in ("*.md", ".github/*.md", "docs/*.md", "bench/**/*.md", "examples/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)


def _anchors(markdown: str) -> set[str]:
    """The names that GitHub gives a document's headings."""
    prose = re.sub(r"^(`{3,}|~{3,}).*?^\1", "", markdown, flags=re.MULTILINE | re.DOTALL)
    names: set[str] = set()
    for heading in re.findall(r"^#+ +(.+?)\s*$", prose, re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        names.add(name if name not in names else f"{name}-{sum(known.startswith(name) for known in names)}")
    return names


def _read(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links(document: str) -> None:
    for target in pages.links(_read(document)):
        if re.match(r"(https?|mailto):", target):
            continue
        pages.site_link(document, target, "https://example.org")  # raises where there is no such file
        path, _, anchor = target.partition("#")
        linked = posixpath.normpath(posixpath.join(posixpath.dirname(document), path)) if path else document
        if anchor and linked.endswith(".md"):
            assert anchor in _anchors(_read(linked)), f"{document}: {target} leads to no heading"


def test_links_are_found_and_rewritten() -> None:
    text = "[a](b.md) ![c](d.png) `[no](code.md)` [e\nf](g.md#h)\n```\n[no](fence.md)\n```\n[i](https://j.k)"
    assert pages.links(text) == ["b.md", "d.png", "g.md#h", "https://j.k"]
    assert "[a](X) ![c](X) `[no](code.md)`" in pages.rewrite_links(text, lambda _: "X")
    assert pages.rewrite_links(text, lambda target: target) == text


def test_links_of_the_site() -> None:
    assert pages.site_link("README.md", "docs/ops.md#a", "S") == "ops.md#a"
    assert pages.site_link("docs/ops.md", "../README.md", "S") == "index.md"
    assert pages.site_link("docs/ops.md", "../csrc/ops.cpp", "S") == "S/csrc/ops.cpp"
    assert pages.site_link("docs/ops.md", "#here", "S") == "#here"
    for wrong in ("nothing.md", "../../outside.md"):
        with pytest.raises(FileNotFoundError, match=wrong):
            pages.site_link("docs/ops.md", wrong, "S")


def test_every_document_is_in_the_navigation() -> None:
    text = re.sub(r"!!python/\S+", "", _read("mkdocs.yml"))
    listed = set(re.findall(r"[\w-]+\.md", str(yaml.safe_load(text)["nav"])))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")} | set(pages.ROOT_PAGES.values())


def test_the_api_reference_has_the_ops_and_no_private_module() -> None:
    reference = pages.api_pages()
    assert "::: score_ext.ops\n" in reference["api/score_ext.md"]
    assert "::: score_ext.reference\n" in reference["api/score_ext.md"]
    assert not re.search(r"::: \S*\._", "".join(reference.values()))


def test_modules_that_moved_are_left_out(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text('"""A package."""\n')
    (package / "here.py").write_text('def f():\n    """Does it."""\n')
    (package / "moved.py").write_text("import warnings\nwarnings.warn('moved', DeprecationWarning)\n")
    (package / "_private.py").write_text('def f():\n    """Does it."""\n')
    assert list(pages.public_modules(package)) == [("package", True), ("package.here", False)]


def test_exports_are_found_where_they_are_defined(tmp_path: Path) -> None:
    init = tmp_path / "__init__.py"
    init.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a.b import C, D as E\n    from .f import G\n"
        "__all__ = ['C', 'E', 'G', '__version__']\n"
    )
    assert pages.exports(init, "a") == {"C": "a.b.C", "E": "a.b.D", "G": "a.f.G"}
