"""The wheel, installed into an environment that has nothing but torch, and the build without a torch."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command outside of the repository, so that nothing is imported from it by accident."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    return subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=variables, cwd="/", check=False, timeout=600
    )


def torch_distributions() -> list[importlib.metadata.Distribution]:
    """Torch and what it requires, as installed here."""
    found: dict[str, importlib.metadata.Distribution] = {}
    names = ["torch"]
    while names:
        name = names.pop()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # required on other platforms only
        requirements = [text for text in found[name].requires or [] if "extra ==" not in text]
        names.extend(re.split(r"[^\w.-]", text)[0].lower() for text in requirements)
    return list(found.values())


@pytest.fixture(scope="module")
def torch_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment whose site-packages hold torch and its requirements (as links: nothing is downloaded)."""
    folder = tmp_path_factory.mktemp("torch-only")
    venv.create(folder, with_pip=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    for distribution in torch_distributions():
        tops = {file.parts[0] for file in distribution.files or []} - {"..", "__pycache__"}
        for top in tops:
            link = site_packages / top
            if not link.exists():
                link.symlink_to(distribution.locate_file(top))
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    built = run(
        sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", folder, ROOT,
        SCORE_CUDA="OFF",
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (file,) = folder.glob("*.whl")
    return file


def test_wheel_needs_torch_alone(wheel: Path, torch_only: Path) -> None:
    python = torch_only / "bin" / "python"
    installed = run(python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", wheel)
    assert installed.returncode == 0, installed.stderr

    report = run(python, "-m", "score_ext")
    assert report.returncode == 0, report.stderr
    assert re.search(r"^CPU kernels +loaded$", report.stdout, re.MULTILINE)
    assert "compress" in report.stdout

    used = run(python, "-P", ROOT / "tools" / "check_wheel.py")
    assert used.returncode == 0, used.stderr
    assert "the ops run under Python" in used.stdout


def other_interpreters() -> dict[str, str]:
    """Supported Pythons of this machine besides the one that runs, by their versions: on the path, and pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = {}
    for minor in range(11, 20):
        name = f"python3.{minor}"
        for candidate in (shutil.which(name), *sorted(pyenv.glob(f"*/bin/{name}"))):
            # under pyenv a name on the path may stand for an interpreter that is not switched on
            if candidate is not None and minor != sys.version_info[1] and run(candidate, "-c", "").returncode == 0:
                found[f"3.{minor}"] = str(candidate)
                break
    return found


def has_torch_at_hand(interpreter: str, folder: Path) -> bool:
    """Whether pip finds torch for it in the folders of wheels that it is set up with, without an index."""
    torch = "torch==2.13.0+cpu"
    return (
        run(interpreter, "-m", "pip", "download", "-q", "--no-index", "--no-deps", "-d", folder, torch).returncode == 0
    )


def test_wheels_of_the_other_pythons(tmp_path: Path) -> None:
    """As the one above, on every other Python that has a torch here; wheels.yml does it on each supported one."""
    others = other_interpreters()
    covered = [version for version, path in others.items() if has_torch_at_hand(path, tmp_path / version)]
    if not covered:
        pytest.skip(f"no torch at hand for the other Pythons of this machine ({', '.join(others) or 'there are none'})")
    for version in covered:
        tried = run(ROOT / "tools" / "wheel.sh", others[version])
        assert tried.returncode == 0, tried.stderr
        assert f"the ops run under Python {version}." in tried.stdout


def test_wheel_is_made_portable(wheel: Path, tmp_path: Path) -> None:
    """As the workflow's wheels: its own libraries alone, those of torch named and not carried."""
    scripts = Path(sys.executable).parent
    repaired = run(
        ROOT / "tools" / "repair_wheel.sh", wheel, tmp_path,
        PATH=os.pathsep.join([str(scripts), os.environ["PATH"]]),
    )  # fmt: skip
    assert repaired.returncode == 0, repaired.stderr
    (file,) = tmp_path.glob("*.whl")
    glibc = re.search(r"-manylinux_2_(\d+)_", file.name)  # what this machine's compiler allows
    assert glibc is not None and int(glibc[1]) >= 28, file.name
    with zipfile.ZipFile(file) as archive:
        libraries = {Path(name).name.split(".")[0] for name in archive.namelist() if ".so" in name}
        assert libraries == {"_ops", "_native"}
        for library in (name for name in archive.namelist() if ".so" in name):
            archive.extract(library, tmp_path)
            assert b"/site-packages/torch" not in (tmp_path / library).read_bytes()  # no path of the machine it is from


def test_build_without_torch_says_what_to_do(tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=False)
    found = run(tmp_path / "bin" / "python", ROOT / "cmake" / "find_torch.py")
    assert found.returncode == 1
    assert "needs torch 2.10 or newer" in found.stderr
    assert "pip install torch" in found.stderr


def test_build_with_an_old_torch_says_so(tmp_path: Path) -> None:
    venv.create(tmp_path, with_pip=False)
    (site_packages,) = tmp_path.glob("lib/python*/site-packages")
    (site_packages / "torch").mkdir()
    (site_packages / "torch" / "__init__.py").touch()
    (site_packages / "torch" / "version.py").write_text("__version__ = '2.4.1+cu121'\n")
    found = run(tmp_path / "bin" / "python", ROOT / "cmake" / "find_torch.py")
    assert found.returncode == 1
    assert "2.4.1+cu121" in found.stderr
    assert "Upgrade torch" in found.stderr


def test_report_of_the_environment() -> None:
    report = run(sys.executable, "-m", "score_ext")
    assert report.returncode == 0, report.stderr
    for line in ("score_ext", "torch", "compiler", "CPU kernels", "CUDA kernels", "GPUs", "ops"):
        assert re.search(rf"^{line} +\S", report.stdout, re.MULTILINE), line
