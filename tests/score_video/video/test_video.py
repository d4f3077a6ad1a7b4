"""Which frames are read, and in which shape."""

from __future__ import annotations

import resource
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from helpers.videos import CLIPS, grey, write_video
from PIL import Image

import score_video.video.sampling
from score_video.video import SampledVideo, VideoError, read_frames


def fit_small(height: int, width: int) -> tuple[int, int]:
    return 48, 64


def keep_size(height: int, width: int) -> tuple[int, int]:
    return height, width


def numbers(video: SampledVideo) -> list[int]:
    """Which frames of a grey video these are, modulo the 11 greys there are."""
    return [round((float(f.mean()) - 20) / 20) % 11 for f in video.frames]


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        ("mp4", "libx264", "yuv420p"),
        ("mkv", "libx264", "yuv420p"),
        ("ts", "libx264", "yuv420p"),
        ("flv", "libx264", "yuv420p"),
        ("webm", "libvpx", "yuv420p"),
        ("mov", "mjpeg", "yuvj420p"),
        ("gif", "gif", "rgb8"),
        ("avi", "mpeg4", "yuv420p"),
        ("nut", "ffv1", "yuv420p"),
    ],
)
def test_centres_of_equal_spans(tmp_path: Path, suffix: str, codec: str, pix_fmt: str) -> None:
    path = write_video(tmp_path / f"clip.{suffix}", 30, codec=codec, pix_fmt=pix_fmt, options={"threads": "1"})
    video = read_frames(path, fit_small, num_frames=8)
    # centres of 8 spans of 3 s: 0.1875, 0.5625, ...; the frame on display began at the tenth before
    wanted = [1, 5, 9, 13, 16, 20, 24, 28]
    assert numbers(video) == [n % 11 for n in wanted]
    assert video.timestamps == pytest.approx([n / 10 for n in wanted])
    assert video.frames.shape == (8, 48, 64, 3)
    assert video.frames.dtype == np.uint8
    assert video.source.duration == pytest.approx(3.0)
    assert video.source.fps == pytest.approx(10.0)
    assert video.damaged == 0


def test_every_so_many_seconds(clip: Path) -> None:
    video = read_frames(clip, fit_small, fps=2.0)
    assert video.timestamps == pytest.approx([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])
    assert numbers(video) == [n % 11 for n in (0, 5, 10, 15, 20, 25)]


@pytest.mark.parametrize("sampling", [{"num_frames": 1000}, {"fps": 1000.0}])
def test_no_frame_is_taken_twice(clip: Path, sampling: dict[str, float]) -> None:
    video = read_frames(clip, fit_small, **sampling)  # type: ignore[arg-type]
    assert numbers(video) == [n % 11 for n in range(30)]
    assert video.timestamps == pytest.approx(np.arange(30) / 10)


def test_variable_frame_rate_goes_by_time(tmp_path: Path) -> None:
    times = [0, 100, 200, 300, 400, 500, 600, 3000, 3100, 3200]
    path = write_video(tmp_path / "vfr.mp4", 10, times=times)
    video = read_frames(path, fit_small, fps=1.0)
    assert numbers(video) == [0, 6, 7]  # 1 s and 2 s show the same frame; 3 s the next
    assert video.timestamps == pytest.approx([0.0, 0.6, 3.0])


def test_few_frames_are_all_taken_however_uneven(tmp_path: Path) -> None:
    path = write_video(tmp_path / "vfr.mp4", 6, times=[0, 100, 200, 300, 5000, 5100])
    assert numbers(read_frames(path, fit_small, num_frames=8)) == [0, 1, 2, 3, 4, 5]


def test_one_frame(tmp_path: Path) -> None:
    video = read_frames(write_video(tmp_path / "one.mp4", 1), fit_small, num_frames=32)
    assert video.timestamps.tolist() == [0.0]
    assert numbers(video) == [0]


def test_a_still_picture_is_a_video_of_one_frame(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (200, 10, 10)).save(tmp_path / "still.png")
    video = read_frames(tmp_path / "still.png", fit_small, num_frames=4)
    assert video.frames.shape == (1, 48, 64, 3)
    assert video.frames[0, 20, 20].tolist() == [200, 10, 10]


def test_odd_size(tmp_path: Path) -> None:
    path = write_video(tmp_path / "odd.mp4", 3, size=(63, 47), pix_fmt="yuv444p")
    video = read_frames(path, keep_size, num_frames=3)
    assert video.frames.shape == (3, 47, 63, 3)
    assert numbers(video) == [0, 1, 2]


def quadrants() -> npt.NDArray[np.uint8]:
    """uint8 [48, 64, 3]: black with a white upper left quarter."""
    frame = np.zeros((48, 64, 3), dtype=np.uint8)
    frame[:24, :32] = 255
    return frame


@pytest.mark.parametrize(
    ("matrix", "rotation", "white"),
    [
        ((0, 1, -1, 0), 270, (0, 1)),  # a quarter clockwise: upper left goes to upper right
        ((-1, 0, 0, -1), 180, (1, 1)),
        ((0, -1, 1, 0), 90, (1, 0)),
    ],
)
def test_rotated(tmp_path: Path, matrix: tuple[int, ...], rotation: int, white: tuple[int, int]) -> None:
    path = write_video(tmp_path / "rotated.mp4", [quadrants()] * 3)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # the display matrix: 3x3, 16.16 fixed point, last column 2.30
    a, b, c, d = (value * 65536 for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    video = read_frames(path, keep_size, num_frames=1)
    height, width = (64, 48) if rotation % 180 else (48, 64)
    assert video.source.rotation == rotation
    assert (video.source.height, video.source.width) == (height, width)
    assert video.frames.shape == (1, height, width, 3)
    quarters = video.frames[0].reshape(2, height // 2, 2, width // 2, 3).mean((1, 3, 4))
    assert np.unravel_index(quarters.argmax(), (2, 2)) == white
    assert np.sort(quarters.ravel())[-2] < 20


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "wide.mp4", 2, options={"preset": "ultrafast", "aspect": "8:3", "x264-params": "sar=2/1"}
    )
    video = read_frames(path, keep_size, num_frames=1)
    assert (video.source.height, video.source.width) == (48, 128)


def test_audio_that_outlasts_the_video_is_no_truncation(tmp_path: Path) -> None:
    for suffix in ("mp4", "mkv"):
        path = write_video(tmp_path / f"audio.{suffix}", 30, audio_seconds=20)
        video = read_frames(path, fit_small, num_frames=3)
        assert video.source.duration == pytest.approx(3.0)
        assert numbers(video) == [n % 11 for n in (5, 15, 25)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts"])
def test_an_hour_decodes_only_what_it_must(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"hour.{suffix}", 3600, rate=1, gop=60)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    video = read_frames(path, fit_small, num_frames=8)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    assert video.timestamps == pytest.approx(225 + 450 * np.arange(8))
    assert numbers(video) == [int(t) % 11 for t in video.timestamps]
    # each from the keyframe before it: under 60 frames; the decoder may run a few frames ahead
    assert video.decoded < 8 * 70


def test_frames_close_together_are_decoded_once(clip: Path) -> None:
    assert read_frames(clip, fit_small, num_frames=29).decoded <= 30


def test_progress_counts_to_the_end(clip: Path) -> None:
    seen: list[tuple[int, int]] = []
    read_frames(clip, fit_small, num_frames=4, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


@pytest.mark.parametrize(
    "sampling",
    [{}, {"num_frames": 4, "fps": 1.0}, {"num_frames": 0}, {"num_frames": -1}, {"fps": 0.0}, {"fps": float("nan")}],
)
def test_impossible_sampling(clip: Path, sampling: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"frames|fps"):
        read_frames(clip, fit_small, **sampling)  # type: ignore[arg-type]


def test_more_pixels_than_memory_is_meant_for(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_video.video.sampling, "MAX_SAMPLED_BYTES", 3 * 48 * 64 * 3)
    assert len(read_frames(clip, fit_small, num_frames=3).frames) == 3
    with pytest.raises(VideoError, match="more than 3 frames of 64x48 pixels asked for: take fewer or smaller"):
        read_frames(clip, fit_small, num_frames=4)


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the shared clips are not here")
@pytest.mark.parametrize(("name", "size"), [("nasa_13013.mp4", (270, 480)), ("bigbuckbunny.mp4", (720, 1280))])
def test_real_clips(name: str, size: tuple[int, int]) -> None:
    video = read_frames(CLIPS / name, fit_small, num_frames=32)
    assert video.frames.shape == (32, 48, 64, 3)
    assert (video.source.height, video.source.width) == size
    assert np.all(np.diff(video.timestamps) > 0)
    assert grey(0) < video.frames.mean() < 200
