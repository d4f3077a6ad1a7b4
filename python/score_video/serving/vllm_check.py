"""Whether an installed vLLM has what the plugin relies on, by its sources: names, signatures, calls and lines.

Releases are not listed: one that has all of it is served, one that has not is refused with what is missing. Nothing of
vLLM is imported for that, so that the check also reads a release that does not run here.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from score_video.serving.vllm_needs import NEEDS, Need

RAN = ("0.32.0",)
"""The releases that the tests in tests/score_video/serving ran on; others that pass the check are served and said to
have been checked alone."""


def installed() -> Path:
    """The folder of the installed vLLM's package; it is not imported. Raises ModuleNotFoundError: there is none."""
    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'vllm'", name="vllm")
    return Path(spec.origin).parent


def missing(package: Path) -> list[str]:
    """What the plugin relies on and a vLLM does not have, in words.

    Args:
        package: the folder ``vllm`` of an installed or unpacked release.
    """
    return [str(need) for need in NEEDS if not _has(package, need)]


def _has(package: Path, need: Need) -> bool:
    found = _definitions(package / need.file).get(need.name)
    if found is None:
        return False
    if need.parameters is not None:
        return isinstance(found, ast.FunctionDef) and _takes(found, need.parameters)
    if need.calls is not None:
        function, arguments = need.calls
        calls = (node for node in ast.walk(found) if isinstance(node, ast.Call))
        named = ({word.arg for word in call.keywords} for call in calls if ast.unparse(call.func) == function)
        return any(names >= set(arguments) for names in named)
    if need.reads is not None:
        return set(_keys(found, need.reads[0])) == set(need.reads[1])
    return need.line is None or any(ast.unparse(node) == need.line for node in ast.walk(found) if _is_code(node))


def _takes(function: ast.FunctionDef, parameters: tuple[str, ...]) -> bool:
    """Whether it can be called with these and nothing else."""
    given = function.args
    places = [argument.arg for argument in (*given.posonlyargs, *given.args) if argument.arg not in ("self", "cls")]
    words = [argument.arg for argument in given.kwonlyargs]
    optional = {
        *places[len(places) - len(given.defaults) :],
        *(word for word, value in zip(words, given.kw_defaults, strict=True) if value is not None),
    }
    names = [*places, *words]
    return names[: len(parameters)] == list(parameters) and set(names[len(parameters) :]) <= optional


def _keys(function: ast.AST, mapping: str) -> Iterator[str]:
    """What is read of a mapping, by ``mapping[...]`` or ``mapping.get(...)``, as Python writes it without quotes."""
    for node in ast.walk(function):
        key = None
        if isinstance(node, ast.Subscript) and ast.unparse(node.value) == mapping:
            key = node.slice
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == f"{mapping}.get":
            key = node.args[0]
        if key is not None:
            yield ast.unparse(key).strip("'")


def _is_code(node: ast.AST) -> bool:
    return isinstance(node, (ast.stmt, ast.expr))


@cache
def _definitions(file: Path) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    """Functions, classes and "Class.method" of a file; nothing where it is not there."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError):
        return {}
    return dict(_named(tree))


def _named(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef | ast.ClassDef]]:
    # of overloads the last, which is the function, is what stays in the dict
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"{node.name}.{inner.name}", inner
