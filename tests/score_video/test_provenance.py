"""What results are kept with: machine, versions and commit."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
import torch

import score_ext
from score_video.provenance import circumstances, commit_of, cpu_name, uncommitted, versions


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some CPU @ 2.0 GHz\n", "Some CPU @ 2.0 GHz"),
        ("processor\t: 0\nCPU part\t: 0xd08\n\nHardware\t: BCM2835\nModel\t: Raspberry Pi 4\n", "Raspberry Pi 4"),
        ("processor\t: 0\nmodel name\t:\ncpu\t\t: POWER9\n", "POWER9"),
    ],
)
def test_the_processor_is_named_as_the_system_names_it(tmp_path: Path, cpuinfo: str, name: str) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert cpu_name(tmp_path / "cpuinfo") == name


def test_a_processor_without_a_name_is_its_architecture(tmp_path: Path) -> None:
    expected = platform.processor() or platform.machine()
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 50.00\nCPU part\t: 0xd0c\n")
    assert cpu_name(tmp_path / "cpuinfo") == cpu_name(tmp_path / "none") == expected


def test_versions_are_of_what_runs() -> None:
    assert versions("torch", "no_such_package") == {
        **{"score": score_ext.__version__, "python": platform.python_version()},
        **{"torch": torch.__version__, "no_such_package": "?"},
    }
    assert set(circumstances("numpy")) == {"cpu", "cores", "date", "score", "python", "numpy"}


def test_a_checkout_tells_its_commit_and_what_differs(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == "?" and uncommitted(tmp_path) is None

    def git(*command: str) -> str:
        settings = ("-c", "user.name=n", "-c", "user.email=e")
        done = subprocess.run(["git", *settings, *command], cwd=tmp_path, check=True, text=True, capture_output=True)
        return done.stdout

    git("init", "-q")
    for name in ("code/a.py", "code/b.py", "text/c.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    git("add", ".")
    git("commit", "-q", "-m", "first")
    assert git("rev-parse", "HEAD").startswith(commit_of(tmp_path)) and len(commit_of(tmp_path)) == 10
    assert uncommitted(tmp_path) == []
    (tmp_path / "code/a.py").write_text("changed")
    (tmp_path / "text/c.md").write_text("changed")
    (tmp_path / "code/new.py").write_text("new")
    assert uncommitted(tmp_path, ["code"]) == ["code/a.py", "code/new.py"]
    assert uncommitted(tmp_path, ["code/b.py"]) == []
