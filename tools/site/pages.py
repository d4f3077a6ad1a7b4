"""What the documentation site has beside docs/: the documents of the root, and the modules of the API reference."""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# files of the repository's root -> their page
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security.md",
}

_NOT_API = {"cli", "commands"}  # what stands behind the command line

# [text](target), ![text](target), also over a line's end; not what stands in code, which _split takes out first
_LINK = re.compile(r"(\]\(\s*)([^()\s]+)((?:\s+\"[^\"]*\")?\s*\))")
_CODE = re.compile(
    r"^(?P<fence>`{3,}|~{3,})[^\n]*\n.*?^(?P=fence)[`~]*\s*?$|(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`)", re.M | re.S
)


def rewrite_links(markdown: str, target: Callable[[str], str]) -> str:
    """Returns the text with every link's target replaced by ``target(it)``; code is left as it is."""

    def in_prose(text: str) -> str:
        return _LINK.sub(lambda match: match[1] + target(match[2]) + match[3], text)

    parts, end = [], 0
    for code in _CODE.finditer(markdown):
        parts += [in_prose(markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, in_prose(markdown[end:])])


def links(markdown: str) -> list[str]:
    """The targets of a document's links and pictures, in order."""
    found: list[str] = []
    rewrite_links(markdown, lambda target: found.append(target) or target)  # type: ignore[func-returns-value]
    return found


def is_relative(target: str) -> bool:
    """Whether a link names a file of this repository, and not an address or a place on the same page."""
    return not re.match(r"[a-zA-Z][a-zA-Z0-9+.-]*:|#|/", target)


def site_link(document: str, target: str, source_url: str) -> str:
    """Where a link of a document leads on the site.

    Args:
        document: the file that has the link, relative to the repository's root.
        target: the link as it stands there, which GitHub reads relative to that file.
        source_url: address under which the repository's files are shown.

    Returns:
        A page's or picture's path relative to docs/'s root; for another file of the repository its address.

    Raises:
        FileNotFoundError: there is no such file in the repository.
    """
    if not is_relative(target):
        return target
    path, hash_, anchor = target.partition("#")
    repository_path = posixpath.normpath(posixpath.join(posixpath.dirname(document), path))
    if repository_path.startswith("..") or not (ROOT / repository_path).exists():
        raise FileNotFoundError(f"{document}: its link {target} leads to no file of the repository")
    if repository_path in ROOT_PAGES:
        return ROOT_PAGES[repository_path] + hash_ + anchor
    if repository_path.startswith("docs/"):
        return repository_path.removeprefix("docs/") + hash_ + anchor
    return f"{source_url}/{repository_path}{hash_}{anchor}"


def public_modules(package: Path) -> Iterator[tuple[str, bool]]:
    """Modules of a package that have something public with a docstring, by name.

    Left out: names with an underscore, the command line, modules that only warn of having moved, those without a
    documented class or function, and folders without an ``__init__.py``, which the reader of the sources (griffe) does
    not take for packages.

    Yields:
        The module's dotted name, and whether it is a package.
    """
    for file in sorted(package.rglob("*.py")):
        parts = list(file.relative_to(package.parent).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        if is_package:
            parts.pop()
        if (
            any(part.startswith("_") or part in _NOT_API for part in parts)
            or not (file.parent / "__init__.py").exists()
        ):
            continue
        tree = ast.parse(file.read_text(encoding="utf-8"))
        if _has_moved(tree) or not (is_package or any(map(_is_documented, tree.body))):
            continue
        yield ".".join(parts), is_package


def _has_moved(tree: ast.Module) -> bool:
    """Whether a module has a warning of its own and no class or function: a name kept for those who import it."""
    warns = any(isinstance(node, ast.Name) and node.id == "DeprecationWarning" for node in ast.walk(tree))
    return warns and not any(map(_is_documented, tree.body))


def _is_documented(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.ClassDef | ast.FunctionDef)
        and not node.name.startswith("_")
        and ast.get_docstring(node) is not None
    )


def exports(init: Path, package: str) -> dict[str, str]:
    """What a package gives under its own name: name -> the dotted name of where it is defined.

    Read from ``__all__`` and the imports in the package's ``__init__.py``, wherever in it they stand.
    """
    tree = ast.parse(init.read_text(encoding="utf-8"))
    defined: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            defined |= {alias.asname or alias.name: f"{module}.{alias.name}" for alias in node.names}
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
    ]
    return {name: defined[name] for name in sorted(set().union(*listed)) if name in defined}


def api_pages() -> dict[str, str]:
    """The API reference: page -> its markdown, a page for each package with what it exports and all its modules."""
    pages: dict[str, list[str]] = {}
    for root in (ROOT / "python", ROOT):
        package = root / ("score_ext" if root == ROOT else "score_video")
        for name, is_package in public_modules(package):
            page = name if is_package else name.rpartition(".")[0]
            pages.setdefault(page, [f"# {page}\n"]).append(f"::: {name}\n{_PACKAGE if is_package else ''}")
            if is_package:
                given = exports(root / name.replace(".", "/") / "__init__.py", name)
                pages[page] += [f"- {reference(path, f'{name}.{export}')}" for export, path in given.items()] + [""]
    return {f"api/{page}.md": "\n".join(parts) for page, parts in pages.items()}


# a package's docstring alone: what its modules define stands under their names
_PACKAGE = "    options: { members: false, show_root_heading: false, show_root_toc_entry: false }\n"


def reference(path: str, shown: str) -> str:
    """A link to where the API reference has a dotted name; only the name as code where it has it not."""
    return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'
