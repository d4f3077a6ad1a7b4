"""Limits on the videos of requests: the setting, and what is looked at before anything is decoded. Without vLLM."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.videos import write_video

from score_video.errors import ScoreError
from score_video.serving.limits import VARIABLE, Limits, RefusedVideoError, read_header


def test_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert Limits.read() == Limits()
    monkeypatch.setenv(VARIABLE, "seconds=600, frames=20000,")
    assert Limits.read() == Limits(seconds=600, frames=20000)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("minutes=3", "must have the names megabytes, seconds, frames, pixels, decoded_megabytes, got 'minutes'"),
        ("seconds", "seconds must be a whole number above 0, got ''"),
        ("seconds=0", "seconds must be a whole number above 0, got '0'"),
        ("frames=1e3", "frames must be a whole number above 0, got '1e3'"),
        ("frames=-1", "frames must be a whole number above 0, got '-1'"),
    ],
)
def test_refuses_a_wrong_setting(monkeypatch: pytest.MonkeyPatch, value: str, said: str) -> None:
    monkeypatch.setenv(VARIABLE, value)
    with pytest.raises(ScoreError, match=f"^{VARIABLE}:? {said}"):
        Limits.read()


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_what_a_header_says(tmp_path: Path, suffix: str) -> None:
    data = write_video(tmp_path / f"clip.{suffix}", 30, size=(96, 64), rate=10).read_bytes()
    header = read_header(data, Limits())
    assert (header.width, header.height) == (96, 64)
    assert header.seconds == pytest.approx(3.0, abs=0.15)
    assert header.frames == pytest.approx(30, abs=1)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(seconds=2), "seconds"),
        (Limits(frames=29), "frames"),
        (Limits(pixels=96 * 64 - 1), "pixels"),
    ],
)
def test_refuses_what_is_too_large(tmp_path: Path, limits: Limits, reason: str) -> None:
    data = write_video(tmp_path / "clip.mp4", 30, size=(96, 64), rate=10).read_bytes()
    with pytest.raises(RefusedVideoError, match=f"^video must have at most .* {reason}, got .*{VARIABLE}") as error:
        read_header(data, limits)
    assert error.value.reason == reason
    with pytest.raises(RefusedVideoError, match=r"at most 1 megabytes, got 2 \("):
        read_header(data + bytes(2_000_000 - len(data)), Limits(megabytes=1))


@pytest.mark.parametrize("data", [b"", b"nothing" * 100, b"ffconcat version 1.0\nfile clip.mp4\n"])
def test_refuses_what_is_no_video(data: bytes) -> None:
    with pytest.raises(RefusedVideoError, match=r"^video cannot be read: ") as error:
        read_header(data, Limits())
    assert error.value.reason == "unreadable"
    assert "/" not in str(error.value)  # no path of the server's
