"""The command from outside: what it writes, what it prints, and how it fails."""

from __future__ import annotations

import json
import os
import pty
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import get_args, get_type_hints

import av
import pytest
import torch
from helpers.videos import CLIPS, write_video
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

import score_video.commands.compress
from score_ext.budget import keep_count
from score_video.cli import METHODS_HELP, app, data, main
from score_video.commands.options import PRETRAINED_NAME
from score_video.compressor import Compressor
from score_video.methods import METHODS
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.video.patches import to_patches
from score_video.video.synthetic import write_clip

PHASES = ["load", "decode", "patch", "compress", "pictures", "write"]
FILES = {"summary.json", "tokens.safetensors", "contact.png", "overlay.mp4"}
ROOT = Path(__file__).resolve().parents[3]
COMMAND = [sys.executable, "-m", "score_video.cli"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "python"), os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test runs in an empty current directory, so that whatever is left behind shows."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def compress(*arguments: object) -> int:
    return main(["compress", *map(str, arguments)])


def refused(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line on stderr of a command that fails with status 2 and leaves nothing behind."""
    before = sorted(Path.cwd().rglob("*"))
    assert compress(*arguments) == 2
    error = capfd.readouterr().err
    assert error.startswith("score: error: ")
    assert error.endswith("\n")
    assert error.count("\n") == 1
    assert sorted(Path.cwd().rglob("*")) == before
    return error


def test_everything_is_written_and_agrees(clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert compress(clip, "--frames", 8, "--retention", 0.25, "--out", "out") == 0
    folder = Path("out")
    assert {p.name for p in folder.iterdir()} == FILES
    assert [p.name for p in Path().iterdir()] == ["out"]

    summary = json.loads((folder / "summary.json").read_text())
    t, gh, gw = summary["grid"]
    assert (t, gh, gw) == (8, 12, 16)
    assert summary["tokens"] == t * gh * gw
    assert summary["kept"] == keep_count(t, gh * gw, 0.25) == sum(summary["kept_per_frame"])
    assert summary["retention"] == {"asked": 0.25, "got": 0.25}
    assert summary["frames"]["sampled"] == len(summary["frames"]["timestamps"]) == 8
    assert list(summary["milliseconds"]) == PHASES
    assert summary["seconds"] == pytest.approx(sum(summary["milliseconds"].values()) / 1000, abs=0.001)
    assert summary["source"]["codec"] == "h264"

    tensors = load_file(folder / "tokens.safetensors")
    assert tensors["grid"].tolist() == [t, gh, gw]
    assert tensors["tokens"].shape == (summary["kept"], 3 * 28 * 28)
    index = tensors["index"]
    assert index.dtype == torch.int64
    assert (index.diff() > 0).all()
    assert torch.bincount(index // (gh * gw), minlength=t).tolist() == summary["kept_per_frame"]
    with safe_open(folder / "tokens.safetensors", "pt") as file:
        assert file.metadata()["layout"] == "t, y, x"

    assert Image.open(folder / "contact.png").size[0] >= 900
    with av.open(str(folder / "overlay.mp4")) as overlay:
        stream = overlay.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.width % 2 == stream.height % 2 == 0
        assert sum(1 for _ in overlay.decode(stream)) == 8

    output = capfd.readouterr()
    assert output.err == ""
    assert output.out.splitlines()[: len(PHASES)] == PHASES
    assert "kept 384 of 1536 tokens (25.00%) of 8 frames" in output.out
    assert "out/contact.png" in output.out


def test_the_kept_tokens_are_those_of_the_video(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Catches the tokens on their way, and compares them with what the file says."""
    seen: list[torch.Tensor] = []

    def spy(frames, patch):  # type: ignore[no-untyped-def]
        tokens, grid = to_patches(frames, patch)
        seen.append(tokens)
        return tokens, grid

    monkeypatch.setattr(score_video.commands.compress, "to_patches", spy)
    choices = {method: ["--method", method] for method in METHODS}
    for name, options in {**choices, PRETRAINED_NAME: []}.items():
        assert compress(clip, "--frames", 3, *options, "--out", name) == 0
        tensors = load_file(Path(name) / "tokens.safetensors")
        assert torch.equal(tensors["tokens"], seen[-1][tensors["index"]])
        assert len(tensors["index"]) == keep_count(3, 12 * 16, 0.1)


def test_what_decides_is_in_the_summary(clip: Path) -> None:
    """The pretrained policy where nothing is said; or a saved one, for any tower or for patches of the size."""
    for name, config in {"any": {"state": "relative"}, "patches": {"token_width": 3 * 28 * 28}}.items():
        SurprisePolicy(SurprisePolicyConfig(**config)).save_pretrained(name)
    Compressor("norm", 0.5, "systematic").save_pretrained("saved")
    said = [
        ([], PRETRAINED_NAME, "diverse", 0.1),
        (["--policy", "any"], "any", "diverse", 0.1),
        (["--policy", "patches", "--selection", "topk", "--retention", "0.2"], "patches", "topk", 0.2),
        (["--policy", "saved"], "saved", "systematic", 0.5),
        (["--method", "evs"], "evs", "topk", 0.1),
        (["--method", "vidcom2"], "vidcom2", None, 0.1),
    ]
    for options, method, law, retention in said:
        assert compress(clip, "--frames", 3, *options, "--out", "out", "--overwrite") == 0
        summary = json.loads(Path("out/summary.json").read_text())
        assert (summary["method"], summary["selection"], summary["retention"]["asked"]) == (method, law, retention)
        assert summary["kept"] == keep_count(3, 12 * 16, retention)


def test_a_former_option_is_taken_and_said_once(clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert compress(clip, "--frames", 2, "--method", "norm", "--law", "systematic", "--out", "out") == 0
    assert capfd.readouterr().err.splitlines() == ["score: warning: --law is now called --selection"]
    assert json.loads(Path("out/summary.json").read_text())["selection"] == "systematic"


def test_policies_that_cannot_decide(clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Compressor(SurprisePolicy(SurprisePolicyConfig(token_width=64))).save_pretrained("narrow")
    assert "tokens must be [L, 64], the token_width of this policy" in refused(capfd, clip, "--policy", "narrow")
    assert "give --policy or --method, not both" in refused(capfd, clip, "--policy", "narrow", "--method", "evs")
    assert "nowhere" in refused(capfd, clip, "--policy", "nowhere")


def test_the_default_folder_is_named_after_the_video(clip: Path) -> None:
    assert compress(clip, "--frames", 2) == 0
    assert [p.name for p in Path().iterdir()] == ["clip-score"]


def test_fewer_frames_than_asked_for_are_said(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert compress(write_video(tmp_path / "one.mp4", 1)) == 0
    assert "of 1 frames (of 32 asked for" in capfd.readouterr().out


@pytest.mark.parametrize(
    "options", [[], ["--selection", "systematic"], ["--fps", "3"], ["--patch", "7", "--size", "63"]]
)
def test_options_that_work(clip: Path, options: list[str]) -> None:
    assert compress(clip, *options) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--retention", "0"], "retention"),
        (["--retention", "1.5"], "retention"),
        (["--retention", "nan"], "retention"),
        (["--retention", "much"], "--retention"),
        (["--frames", "0"], "frames"),
        (["--frames", "9999999999"], "frames"),
        (["--fps", "-1"], "fps"),
        (["--fps", "inf"], "fps"),
        (["--fps", "1e300"], "more than 1000000"),
        (["--frames", "4", "--fps", "1"], "not both"),
        (["--method", "sorprise"], "there are surprise, surprise-l2"),
        (["--selection", "lottery"], "selection must be 'systematic', 'topk', 'diverse' or None, got 'lottery'"),
        (["--method", "vidcom2", "--selection", "systematic"], "vidcom2"),
        (["--patch", "0"], "patch"),
        (["--patch", "500"], "larger than the frame"),
        (["--size", "-5"], "larger than the frame"),
        (["--size", "100000", "--patch", "1000"], "smaller"),
        (["--seed", "-1"], "seed"),
        (["--colour", "red"], "--colour"),
    ],
)
def test_impossible_options(clip: Path, capfd: pytest.CaptureFixture[str], options: list[str], said: str) -> None:
    assert said in refused(capfd, clip, *options)


def test_unusable_files(tmp_path: Path, audio_only: Path, faststart: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a video\n" * 50)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:3,\nhttp://127.0.0.1/clip.ts\n")
    cut = faststart.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(cut[: len(cut) // 2])
    assert "No such file" in refused(capfd, "nothing.mp4")
    assert "empty" in refused(capfd, tmp_path / "empty.mp4")
    assert "not a video file" in refused(capfd, tmp_path / "text.mp4")
    assert "not a video file" in refused(capfd, tmp_path / "list.m3u8")
    assert "truncated" in refused(capfd, tmp_path / "cut.mp4")
    assert "no video stream" in refused(capfd, audio_only)


def test_a_name_cannot_break_the_line(capfd: pytest.CaptureFixture[str]) -> None:
    assert r"no\x1b[31m\nsuch" in refused(capfd, "no\x1b[31m\nsuch.mp4")


def test_no_video_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    assert "video" in refused(capfd).lower()


def test_existing_results_are_only_replaced_when_told(clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert compress(clip, "--frames", 2, "--out", "out") == 0
    first = Path("out/summary.json").read_text()
    assert "not empty" in refused(capfd, clip, "--out", "out")
    assert Path("out/summary.json").read_text() == first
    assert compress(clip, "--frames", 3, "--out", "out", "--overwrite") == 0
    assert json.loads(Path("out/summary.json").read_text())["grid"][0] == 3
    assert [p.name for p in Path().iterdir()] == ["out"]


def test_a_failed_replacement_leaves_the_old_result(clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert compress(clip, "--frames", 2, "--out", "out") == 0
    first = Path("out/summary.json").read_text()
    refused(capfd, "nothing.mp4", "--out", "out", "--overwrite")
    assert Path("out/summary.json").read_text() == first


def test_nobody_elses_files_are_deleted(clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("diary").mkdir()
    Path("diary/today.txt").write_text("dear diary")
    assert "today.txt" in refused(capfd, clip, "--out", "diary", "--overwrite")
    assert Path("diary/today.txt").read_text() == "dear diary"


def test_an_empty_folder_is_used(clip: Path) -> None:
    Path("out").mkdir()
    assert compress(clip, "--frames", 2, "--out", "out") == 0
    assert {p.name for p in Path("out").iterdir()} == FILES


@pytest.mark.parametrize(
    ("out", "said"), [("missing/out", "does not exist"), ("file", "not a folder"), ("/proc/out", "/proc/out")]
)
def test_places_that_cannot_be_written(clip: Path, capfd: pytest.CaptureFixture[str], out: str, said: str) -> None:
    Path("file").write_text("here first")
    assert said in refused(capfd, clip, "--out", out)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(clip: Path, capfd: pytest.CaptureFixture[str]) -> None:
    Path("locked").mkdir(mode=0o500)
    assert "Permission denied" in refused(capfd, clip, "--out", "locked/out")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_out_of_memory(
    clip: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(score_video.commands.compress, "to_patches", fail)
    assert "not enough memory" in refused(capfd, clip)


def test_bugs_are_not_hidden(clip: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(score_video.commands.compress, "to_patches", fail)
    assert compress(clip) == 1
    line = capfd.readouterr().err.splitlines()[-1]
    assert line.startswith("score: bug: RuntimeError: a bug (the traceback is in ")
    assert not list(Path().iterdir())


@pytest.mark.parametrize("limit", [10_000, 200_000])
def test_a_full_disk(clip: Path, limit: int) -> None:
    """A limit on the size of files stands in for it: the picture, the tokens or the overlay do not fit."""
    done = subprocess.run(
        [*COMMAND, "compress", str(clip), "--retention", "0.5"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 2
    assert done.stderr.startswith("score: error: clip-score: ")
    assert done.stderr.count("\n") == 1
    assert not list(Path().iterdir())


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_from_outside(tmp_path: Path, number: int, status: int) -> None:
    path = write_video(tmp_path / "long.mp4", 3000, gop=250)
    with subprocess.Popen(
        [*COMMAND, "compress", str(path), "--fps", "10", "--size", "280"],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # what a shell runs in the background ignores SIGINT, and so would whatever that runs
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == ["load\n", "decode\n"]
        process.send_signal(number)
        _, error = process.communicate(timeout=300)
    assert process.returncode == status
    assert error == ""
    assert not list(Path().iterdir())


def test_a_bar_on_a_terminal(clip: Path) -> None:
    try:
        ours, theirs = pty.openpty()
    except OSError:
        pytest.skip("no pseudo-terminals on this machine")
    with subprocess.Popen(
        [*COMMAND, "compress", str(clip), "--frames", "4"],
        env={**ENVIRONMENT, "TERM": "xterm", "COLUMNS": "80"},
        stdout=theirs,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                chunk = os.read(ours, 4096)
            except OSError:  # how Linux says that the other end is closed
                break
            if not chunk:
                break
            shown += chunk
        assert process.wait() == 0
    os.close(ours)
    assert "━".encode() in shown
    assert b"kept 76 of 768 tokens" in shown
    assert b"s: start " in shown  # of a process that is here for the command alone


def test_help_teaches(capfd: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "score compress holiday.mp4" in capfd.readouterr().out
    assert main(["compress", "--help"]) == 0
    assert "score compress holiday.mp4" in capfd.readouterr().out
    assert METHODS_HELP.split(", ")[:-1] == [*METHODS]


def text_options() -> list[tuple[str, list[str]]]:
    """(command, arguments with one that is not UTF-8) for each option and argument of each command that is text."""
    rest = {"ask": ["clip.mp4", "What?", "--model", "m"], "compress": ["clip.mp4"], "check": ["a.jsonl"]}
    rest["filter"] = ["a.jsonl", "--output", "o.jsonl", "--model", "m"]
    found = []
    for info in (*app.registered_commands, *data.registered_commands):
        assert info.callback is not None
        command = info.name or info.callback.__name__
        prefix = ["data", command] if info in data.registered_commands else [command]
        for name, hint in get_type_hints(info.callback, include_extras=True).items():
            typed = get_args(hint)[0] if get_args(hint) else None
            kinds = {typed, *get_args(typed)}
            if not kinds & {str, list[str]} or name in ("file", "files", "policy"):  # those may be names of files
                continue
            option = "--set" if name == "setting" else f"--{name.replace('_', '-')}"
            given = rest.get(command, [])
            more = [given[0], "caf\udce9?", *given[2:]] if name == "question" else [*given, option, "caf\udce9"]
            found.append((name, [*prefix, *more]))
    return found


def test_text_that_is_not_utf_8(capfd: pytest.CaptureFixture[str]) -> None:
    """As an argument in Latin-1 comes in: with its bytes escaped. Names of files may be so."""
    options = text_options()
    names = {name for name, _ in options}
    assert names >= {"question", "model", "device", "dtype", "method", "selection", "split", "retention", "setting"}
    for name, arguments in options:
        assert main(arguments) == 2, name
        error = capfd.readouterr().err
        assert "must be text in UTF-8" in error and error.count("\n") == 1, name
    assert "No such file" in refused(capfd, "caf\udce9.mp4")


@pytest.mark.parametrize(
    ("command", "says"),
    [("train", "per_device_train_batch_size"), ("eval", "not enough memory\n"), ("data", "--workers")],
)
def test_out_of_memory_elsewhere(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, command: str, says: str
) -> None:
    """What is to be done differs: not every command has frames."""

    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("score_video.cli.app", fail)
    assert main([command]) == 2
    error = capfd.readouterr().err
    assert says in error and "--frames" not in error


def test_version(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capfd.readouterr().out.startswith("score ")


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from score_video.cli import main; main(['compress', '--help']); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, check=True, capture_output=True)


def test_the_rendered_clip(tmp_path: Path) -> None:
    write_clip(tmp_path / "rendered.mp4")
    assert compress(tmp_path / "rendered.mp4", "--method", "evs-capped", "--out", "out") == 0
    summary = json.loads(Path("out/summary.json").read_text())
    assert summary["source"]["duration"] == pytest.approx(6.0)
    still = [
        k for k, t in zip(summary["kept_per_frame"], summary["frames"]["timestamps"], strict=True) if 2.6 < t < 3.7
    ]
    assert still == [0] * len(still)  # nothing moves, nothing is kept
    assert len(still) > 2


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the shared clips are not here")
@pytest.mark.parametrize("name", ["nasa_13013.mp4", "bigbuckbunny.mp4"])
def test_real_clips(name: str) -> None:
    assert compress(CLIPS / name, "--out", "out") == 0
    summary = json.loads(Path("out/summary.json").read_text())
    assert (summary["tokens"], summary["kept"]) == (4608, 460)
