"""What is run by ``python -m`` tells a user's mistake from a bug, as ``score`` does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer

import score_video
from score_video.command_line import run_module
from score_video.errors import ScoreError

ROOT = Path(score_video.__file__).parent
MODULES = sorted(
    path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py") if '__name__ == "__main__"' in path.read_text()
)
ELSEWHERE = {"cli.py": "exit_status", "app/decoding.py": "_main"}  # the latter is a part of `score app`


def fails(how: Annotated[str, typer.Argument(help="In which way.")]) -> None:
    """Fail."""
    errors = {
        "user": ScoreError("retention must be\nabove 0"),
        "disk": PermissionError(13, "Permission denied", "out"),
        "bug": ValueError("operands could not be broadcast"),
        "memory": MemoryError(),
    }
    if how != "not":
        raise errors[how]


def status_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["somewhere/tool.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        run_module(fails)
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("user", r"tool: error: retention must be\nabove 0"),
        ("disk", "tool: error: out: Permission denied"),
        ("memory", "tool: error: not enough memory"),
    ],
)
def test_what_a_user_can_mend_is_one_line(
    how: str, line: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert status_of(monkeypatch, how) == 2
    assert capfd.readouterr().err == f"{line}\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert status_of(monkeypatch, "bug") == 1
    found = re.fullmatch(
        r"tool: bug: ValueError: operands could not be broadcast \(the traceback is in (\S+): please report it\)\n",
        capfd.readouterr().err,
    )
    assert found is not None
    assert "in fails" in Path(found[1]).read_text()
    Path(found[1]).unlink()


def test_wrong_options_and_no_error(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert status_of(monkeypatch, "not") == 0
    assert status_of(monkeypatch) == 2
    assert status_of(monkeypatch, "not", "--nothing") == 2
    assert capfd.readouterr().err.count("tool: error: ") == 2


@pytest.mark.parametrize("module", MODULES)
def test_every_module_that_is_run_does(module: str) -> None:
    text = (ROOT / module).read_text()
    end = text[text.index('if __name__ == "__main__"') :]
    assert ELSEWHERE.get(module, "run_module(main)") in (end if module != "cli.py" else text)


@pytest.mark.parametrize(
    ("module", "arguments", "said"),
    [
        ("composite.train_reader", ["nowhere", "out.safetensors"], "train_reader: error: .*reader-00000.* is missing"),
        ("composite.dinov2", ["nowhere", "out"], "dinov2: error: .* is missing: python -m"),
        (
            "composite.features",
            ["nowhere", "t", "out", "part", "20"],
            "features: error: .*must be one of reader",
        ),
        (
            "video.synthetic",
            ["nowhere/clip.mp4"],
            "synthetic: error: nowhere/clip.mp4: the folder it should be made in",
        ),
    ],
)
def test_in_a_process(module: str, arguments: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"score_video.{module}", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert re.match(said, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1
