"""What a video shows is what a player shows: edit lists, missing times, joints and jumps, orientation, pictures."""

from __future__ import annotations

import itertools
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
from helpers.numbered import cut_by_edit_list, number_of, set_display_matrix, shown_by_a_player, write_numbered
from helpers.videos import write_video
from PIL import Image

from score_video.video import SampledVideo, VideoError, read_frames

FAST = {"preset": "ultrafast"}
READS = 160


def same_size(height: int, width: int) -> tuple[int, int]:
    return height, width


def numbers(video: SampledVideo) -> list[int]:
    return [number_of(frame) for frame in video.frames]


def spread(shown: list[int], count: int) -> list[int]:
    """What ``count`` moments show of frames of equal length."""
    return [shown[(2 * i + 1) * len(shown) // (2 * count)] for i in range(count)]


CODECS = {
    "libx264": {**FAST, "g": "40"},
    "b-frames": {"preset": "veryfast", "g": "40", "bf": "2"},
    "libx265": {**FAST, "x265-params": "log-level=none:keyint=40"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "g": "40"},
    "libsvtav1": {"preset": "12", "g": "40"},
}


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("front", "back"), [(1, 0), (5, 0), (45, 0), (0, 50), (33, 21)])
def test_what_an_edit_list_has_cut_off_is_not_shown(tmp_path: Path, codec: str, front: int, back: int) -> None:
    path = tmp_path / "cut.mp4"
    encoder = "libx264" if codec == "b-frames" else codec
    write_numbered(path, range(100), range(100), rate=10, codec=encoder, options=CODECS[codec])
    cut_by_edit_list(path, Fraction(front, 10), Fraction(100 - front - back, 10))
    shown = shown_by_a_player(path)
    assert shown == list(range(shown[0], shown[0] + 100 - front - back))
    for count in (8, 32):
        assert numbers(read_frames(path, same_size, num_frames=count)) == spread(shown, count)
    every_second = read_frames(path, same_size, fps=1)
    assert numbers(every_second) == shown[::10]
    assert every_second.source.duration == pytest.approx((100 - front - back) / 10)
    assert every_second.source.frames == len(shown)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "options"),
    [
        ("small.mpg", "mpeg2video", 24, {"g": "5", "bf": "2"}),  # several frames behind one time
        ("intra.mpg", "mpeg1video", 30, {"g": "1"}),
        ("b.avi", "libx264", 25, {"bf": "3", "g": "25"}),  # times are those of storing
        ("b-pyramid.avi", "mpeg4", 25, {"bf": "2", "g": "25"}),
        ("raw.h264", "libx264", 10, {**FAST, "g": "20"}),
        ("raw.hevc", "libx265", 30, {**FAST, "x265-params": "log-level=none:keyint=20"}),
        ("raw.m2v", "mpeg2video", 25, {"g": "12", "bf": "2"}),
    ],
)
def test_frames_without_times_of_their_own_are_counted(
    tmp_path: Path, name: str, codec: str, rate: int, options: dict[str, str]
) -> None:
    path = write_numbered(tmp_path / name, range(200), range(200), rate=rate, codec=codec, options=options)
    shown = shown_by_a_player(path)
    assert shown == list(range(200))
    for count in (8, 32, 64):
        assert numbers(read_frames(path, same_size, num_frames=count)) == spread(shown, count)
    video = read_frames(path, same_size, fps=1)
    assert numbers(video) == shown[::rate]
    assert video.source.duration == pytest.approx(200 / rate)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("mkv", "libx264"),
        ("webm", "libvpx"),
        ("wmv", "wmv2"),
        ("ts", "libx264"),
        ("mp4", "libx264"),
        ("flv", "libx264"),
    ],
)
def test_a_picture_that_begins_late(tmp_path: Path, suffix: str, codec: str) -> None:
    options = FAST if codec == "libx264" else {}
    path = tmp_path / f"late.{suffix}"
    write_numbered(path, range(60), range(300, 360), rate=10, codec=codec, options=options)
    video = read_frames(path, same_size, num_frames=8)
    assert numbers(video) == [3, 11, 18, 26, 33, 41, 48, 56]
    assert video.timestamps[0] == pytest.approx(0.3)
    assert video.source.duration == pytest.approx(6.0)


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize(("suffix", "codec"), [("ts", "libx264"), ("ts", "mpeg2video"), ("mpg", "mpeg2video")])
def test_times_that_begin_anew(tmp_path: Path, suffix: str, codec: str, parts: int) -> None:
    options = {**FAST, "bf": "2"} if codec == "libx264" else {"bf": "1", "g": "12"}
    data = b""
    for part in range(parts):
        piece = tmp_path / f"part.{suffix}"
        counted = range(70 * part, 70 * part + 70)
        write_numbered(piece, counted, range(70), rate=25, codec=codec, options=options)
        data += piece.read_bytes()
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(data)
    shown = shown_by_a_player(path)
    assert set(shown) == set(range(70 * parts))
    video = read_frames(path, same_size, num_frames=32)
    assert numbers(video) == spread(shown, 32)
    assert video.source.duration == pytest.approx(70 * parts / 25, abs=0.1)


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4", "flv"])
@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize("pause", [60, 7200])
def test_times_that_jump(tmp_path: Path, suffix: str, b_frames: int, pause: int) -> None:
    times = [*range(40), *range(40 + 10 * pause, 100 + 10 * pause)]
    path = tmp_path / f"jump.{suffix}"
    write_numbered(path, range(100), times, rate=10, options={"preset": "veryfast", "bf": str(b_frames), "g": "20"})
    video = read_frames(path, same_size, num_frames=32)
    assert numbers(video) == spread(list(range(100)), 32)
    assert video.source.duration == pytest.approx(10.0, abs=0.01)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "flv"])
@pytest.mark.parametrize("how", ["", "open-gop=1", "intra-refresh=1"])
@pytest.mark.parametrize("gop", [5, 250])
def test_frames_that_none_refers_to_are_left_out(tmp_path: Path, suffix: str, how: str, gop: int) -> None:
    """What is wanted is to the bit what a decode of everything gives; a quarter of all, or more, are not decoded."""
    options = {"preset": "veryfast", "g": str(gop), "bf": "1", "sc_threshold": "0"} | (
        {"x264-params": how} if how else {}
    )
    path = write_numbered(tmp_path / f"clip.{suffix}", range(180), range(180), rate=25, options=options)
    with av.open(str(path)) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for count in (8, 40):
        video = read_frames(path, same_size, num_frames=count)
        wanted = spread(list(range(180)), count)
        assert numbers(video) == wanted
        assert all((frame == plain[number]).all() for frame, number in zip(video.frames, wanted, strict=True))
        assert video.decoded < 140


def test_pauses_of_a_slide_show_are_no_jumps(tmp_path: Path) -> None:
    path = write_numbered(tmp_path / "slides.mp4", range(6), range(0, 120, 20), rate=1, options=FAST)
    video = read_frames(path, same_size, fps=0.1)
    assert numbers(video) == list(range(6))
    assert video.timestamps == pytest.approx(np.arange(6) * 20)


def test_a_screen_that_stands_still_for_a_while_is_no_jump(tmp_path: Path) -> None:
    times = [*range(100), *range(400, 500)]  # half a minute in a recording of twenty seconds of movement
    path = write_numbered(tmp_path / "screen.mp4", range(200), times, rate=10, options=FAST)
    video = read_frames(path, same_size, num_frames=10)
    assert video.source.duration == pytest.approx(20.0, abs=0.1)  # longer than all the rest: it would hide it
    times = [*range(200), *range(350, 400)]  # 15 s beside 25
    path = write_numbered(tmp_path / "pause.mp4", range(250), times, rate=10, options=FAST)
    assert read_frames(path, same_size, num_frames=10).source.duration == pytest.approx(40.0, abs=0.1)


MATRICES = [
    (a, b, c, d)
    for a, b, c, d in itertools.product((-1, 0, 1), repeat=4)
    if abs(a) + abs(b) == 1 and abs(a) == abs(d) and abs(b) == abs(c)
]


def as_shown(stored: npt.NDArray[np.int64], a: int, b: int, c: int, d: int) -> npt.NDArray[np.int64]:
    """Each cell (x, y) put at (a x + c y, b x + d y), by the definition."""
    cells = {(a * x + c * y, b * x + d * y): stored[y, x] for y, x in np.ndindex(*stored.shape)}
    left, top = (min(place[axis] for place in cells) for axis in (0, 1))
    size = [1 + max(place[axis] for place in cells) - low for axis, low in ((1, top), (0, left))]
    shown = np.zeros(size, dtype=np.int64)
    for (x, y), value in cells.items():
        shown[y - top, x - left] = value
    return shown


@pytest.mark.parametrize("matrix", MATRICES)
def test_all_eight_ways_a_camera_is_held(tmp_path: Path, matrix: tuple[int, int, int, int]) -> None:
    grey = np.array([[250, 200, 150], [20, 60, 100]])  # two rows of three cells
    stored = grey.repeat(24, 0).repeat(24, 1).astype(np.uint8)[:, :, None].repeat(3, 2)  # [48, 72, 3]
    path = write_video(tmp_path / "held.mp4", [stored] * 3, size=(72, 48))
    set_display_matrix(path, *matrix)
    video = read_frames(path, same_size, num_frames=1)
    wanted = as_shown(grey, *matrix)
    height, width = video.frames.shape[1:3]
    assert (height, width) == (24 * wanted.shape[0], 24 * wanted.shape[1])
    assert (video.source.height, video.source.width) == (height, width)
    cells = video.frames[0].reshape(wanted.shape[0], 24, wanted.shape[1], 24, 3).mean((1, 3, 4))
    assert np.abs(cells - wanted).max() < 12


@pytest.mark.parametrize("name", ["photo.jpg", "photo.jpeg", "photo", "photo.png", "photo%d.jpg", "photo.mp4"])
def test_a_photo_is_read_whatever_its_name(tmp_path: Path, name: str) -> None:
    image = Image.new("RGB", (64, 48), (200, 10, 10))
    image.save(tmp_path / name, format="PNG" if name.endswith("png") else "JPEG", quality=95)
    video = read_frames(tmp_path / name, same_size, num_frames=8)
    assert video.frames.shape == (1, 48, 64, 3)
    assert np.abs(video.frames[0, 20, 20].astype(int) - [200, 10, 10]).max() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_as_its_exif_says(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    stored = np.zeros((48, 64, 3), dtype=np.uint8)
    stored[:24, :32] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / "photo.jpg", exif=exif, quality=95)
    with Image.open(tmp_path / "photo.jpg") as image:
        wanted = np.asarray(ImageOps.exif_transpose(image))
    got = read_frames(tmp_path / "photo.jpg", same_size, num_frames=1).frames[0]
    assert got.shape == wanted.shape
    assert np.abs(got.astype(int) - wanted).mean() < 3


def test_animated_webp(tmp_path: Path) -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0)]
    images = [Image.new("RGB", (64, 48), colour) for colour in colours]
    images[0].save(
        tmp_path / "moving.webp", save_all=True, append_images=images[1:], duration=[100, 100, 800, 100], lossless=True
    )
    video = read_frames(tmp_path / "moving.webp", same_size, num_frames=8)
    assert video.timestamps == pytest.approx([0.0, 0.1, 0.2, 1.0])
    assert [tuple(frame[0, 0]) for frame in video.frames] == colours
    assert video.source.duration == pytest.approx(1.1)
    assert read_frames(tmp_path / "moving.webp", same_size, num_frames=2).timestamps == pytest.approx([0.2])
    data = (tmp_path / "moving.webp").read_bytes()
    (tmp_path / "cut.webp").write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match=r"cut\.webp: damaged or cut off"):
        read_frames(tmp_path / "cut.webp", same_size, num_frames=2)


def test_a_still_webp(tmp_path: Path) -> None:
    Image.new("RGB", (64, 48), (200, 10, 10)).save(tmp_path / "still.webp", lossless=True)
    video = read_frames(tmp_path / "still.webp", same_size, fps=2)
    assert video.frames.shape == (1, 48, 64, 3)
    assert video.frames[0, 0, 0].tolist() == [200, 10, 10]
    assert video.source.fps is None


def test_a_file_whose_header_is_wrong_can_be_insisted_on(tmp_path: Path, faststart: Path) -> None:
    data = faststart.read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match="--allow-truncated reads what there is"):
        read_frames(path, same_size, num_frames=8)
    video = read_frames(path, same_size, num_frames=8, allow_truncated=True)
    assert len(video.frames) == 8
    assert video.source.duration == pytest.approx(3.0, abs=0.2)


def test_pauses_in_avi_are_real(tmp_path: Path) -> None:
    times = [*range(50), *range(150, 200)]
    path = write_numbered(tmp_path / "gap.avi", range(100), times, rate=25, codec="mjpeg", pix_fmt="yuvj420p")
    video = read_frames(path, same_size, fps=1)
    assert video.source.duration == pytest.approx(8.0)
    assert numbers(video) == [0, 25, 49, 50, 75]  # 2 to 5 s show what came on at 1.96 s


@pytest.mark.parametrize("name", ["camera.mjpeg", "camera.jpg", "camera"])
def test_motion_jpeg_is_no_photo(tmp_path: Path, name: str) -> None:
    source = write_numbered(tmp_path / "raw.mjpeg", range(50), range(50), rate=25, codec="mjpeg", pix_fmt="yuvj420p")
    path = source.rename(tmp_path / name)
    assert numbers(read_frames(path, same_size, num_frames=8)) == spread(list(range(50)), 8)


@pytest.mark.parametrize("cut", [0.2, 0.45])
@pytest.mark.parametrize(
    ("codec", "options"), [("libx264", {**FAST, "g": "40"}), ("mpeg2video", {"g": "12", "bf": "2"})]
)
def test_a_recording_that_begins_in_the_middle(tmp_path: Path, codec: str, options: dict[str, str], cut: float) -> None:
    """The clock begins with the first frame that can be shown."""
    path = write_numbered(tmp_path / "cut.ts", range(200), range(200), rate=25, codec=codec, options=options)
    data = path.read_bytes()
    path.write_bytes(data[int(len(data) * cut) // 188 * 188 :])
    shown = [number for number in shown_by_a_player(path) if number >= 0]
    video = read_frames(path, same_size, num_frames=8)
    assert len(video.frames) == 8
    assert video.timestamps[0] < 0.1 * video.source.duration
    assert all(abs(a - b) <= 3 for a, b in zip(numbers(video), spread(shown, 8), strict=True))


@pytest.mark.parametrize("count", [1, 4, 8, 16, 32])
def test_one_loss_does_not_move_the_rest(tmp_path: Path, count: int) -> None:
    options = {"preset": "veryfast", "bf": "2", "g": "25"}
    path = write_numbered(tmp_path / "lost.ts", range(250), range(250), rate=25, options=options)
    data = path.read_bytes()
    at = len(data) // 5 // 188 * 188
    path.write_bytes(data[:at] + data[at + 40 * 188 :])
    video = read_frames(path, same_size, num_frames=count)
    assert video.source.duration == pytest.approx(10.0, abs=0.05)
    late = video.timestamps > 4
    assert np.abs(video.timestamps[late] * 25 - np.array(numbers(video))[late]).max() <= 1.01


def test_random_files_against_a_plain_decode() -> None:
    """A short run of ``make fuzz``, in a process of its own: the encoders write to the terminal."""
    program = Path(__file__).with_name("fuzz_video.py")
    done = subprocess.run(
        [sys.executable, str(program), str(READS), "1"], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "0 files read wrong" in done.stdout
