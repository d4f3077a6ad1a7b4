"""Files that are not what they should be: frames or one clear VideoError, never anything else."""

from __future__ import annotations

import random
import socket
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from helpers.videos import write_video
from PIL import Image

from score_video.video import VideoError, read_frames


def fit_small(height: int, width: int) -> tuple[int, int]:
    return 48, 64


def refusal(path: Path | str) -> str:
    """The one line with which a file is refused; it begins with the file's name."""
    with pytest.raises(VideoError) as caught:
        read_frames(path, fit_small, num_frames=8)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_missing(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "nothing.mp4")


def test_directory(tmp_path: Path) -> None:
    assert "not a regular file" in refusal(tmp_path)


def test_device() -> None:
    assert "not a regular file" in refusal("/dev/zero")


def test_address() -> None:
    assert "No such file" in refusal("http://127.0.0.1/clip.mp4")


def test_zero_byte_in_the_name() -> None:
    assert "null byte" in refusal("clip\0.mp4")


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.mp4"
    path.touch()
    assert "empty" in refusal(path)


def test_random_bytes(tmp_path: Path) -> None:
    path = tmp_path / "random.mp4"
    path.write_bytes(np.random.default_rng(0).bytes(100_000))
    assert "not a video file" in refusal(path)


@pytest.mark.parametrize("name", ["text.mp4", "text.txt", "text.nfo"])
def test_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("to be or not to be\n" * 100)
    assert "not a video file" in refusal(path)


def test_audio_only(audio_only: Path) -> None:
    assert "no video stream" in refusal(audio_only)


def test_cover_art_is_no_video(tmp_path: Path, audio_only: Path) -> None:
    import av
    from av.stream import Disposition

    Image.new("RGB", (32, 32)).save(tmp_path / "cover.png")
    path = tmp_path / "song.mp4"
    with (
        av.open(str(audio_only)) as song,
        av.open(str(tmp_path / "cover.png")) as cover,
        av.open(str(path), "w") as out,
    ):
        audio = out.add_stream_from_template(song.streams.audio[0])
        picture = out.add_stream_from_template(cover.streams.video[0])
        picture.disposition = Disposition.attached_pic.value  # a number for PyAV before 17
        for source, target in ((cover, picture), (song, audio)):
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = target
                    out.mux(packet)
    assert "no video stream" in refusal(path)


SDP = (
    "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {port} RTP/AVP 96\na=rtpmap:96 H264/90000\n"
)
MPD = (
    '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
    '<Representation id="1" bandwidth="1"><BaseURL>clip.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>'
)


@pytest.mark.parametrize("suffix", [".mp4", ""])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nclip.ts\n#EXT-X-ENDLIST\n"),
        ("list.ffconcat", "ffconcat version 1.0\nfile clip.mp4\n"),
        ("list.mpd", MPD),
        ("list.sdp", SDP.format(port=5004)),
    ],
)
def test_playlists_open_nothing(tmp_path: Path, name: str, text: str, suffix: str) -> None:
    write_video(tmp_path / "clip.mp4", 3)
    write_video(tmp_path / "clip.ts", 3)
    path = tmp_path / (name + suffix)
    path.write_text(text)
    assert "not a video file" in refusal(path)


def test_a_playlist_reaches_no_network(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        path = tmp_path / "list.m3u8"
        address = f"http://127.0.0.1:{server.getsockname()[1]}/clip.ts"
        path.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{address}\n#EXT-X-ENDLIST\n")
        refusal(path)
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("name", ["concat:clip.mp4", "file:clip.mp4", "clip%d.mp4", "pipe:0", "data:clip"])
def test_names_are_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write_video(tmp_path / "clip.mp4", 3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert len(read_frames(name, fit_small, num_frames=8).frames) == 3


@pytest.mark.parametrize(("width", "height"), [(100_000, 64), (64, 100_000), (16_000, 16_000), (0, 64)])
def test_absurd_size(tmp_path: Path, width: int, height: int) -> None:
    path = tmp_path / "huge.png"
    Image.new("RGB", (64, 48)).save(path)
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(data)
    assert any(word in refusal(path) for word in ("larger", "size", "none of its frames", "not a video"))


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1, 0.3, 0.5, 0.8])
def test_cut_off_behind_the_header(tmp_path: Path, faststart: Path, share: float) -> None:
    path = tmp_path / "cut.mp4"
    data = faststart.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    message = refusal(path)
    assert any(word in message for word in ("truncated", "cut off", "no video stream"))
    if share >= 0.1:
        assert f"6.0 s by the header, but the data end at {share * 6:.1f} s" in message


def test_a_missing_tail_of_under_a_second_is_forgiven(tmp_path: Path, faststart: Path) -> None:
    path = tmp_path / "cut.mp4"
    data = faststart.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.9)])
    video = read_frames(path, fit_small, num_frames=8)
    assert len(video.frames) == 8
    assert video.source.duration == pytest.approx(5.4)


def test_cut_off_before_the_header(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "cut.mp4"  # the header is at the end
    path.write_bytes(clip.read_bytes()[:-100])
    assert "cut off" in refusal(path)


@pytest.mark.parametrize("suffix", ["mkv", "flv"])
def test_cut_off_streams(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8)
    path = write_video(tmp_path / f"noise.{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert "truncated" in refusal(path)


def test_a_header_that_claims_hours(tmp_path: Path, clip: Path) -> None:
    data = bytearray(clip.read_bytes())
    for box, at in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20), (b"elst", 12)):
        where = data.index(box) + at
        data[where : where + 4] = struct.pack(">I", 2**31 - 1)
    path = tmp_path / "liar.mp4"
    path.write_bytes(data)
    try:  # the data are whole, so that reading them is as good as refusing
        video = read_frames(path, fit_small, num_frames=8)
    except VideoError as error:
        assert "header" in str(error)
    else:
        assert video.timestamps.max() < 3.0


def test_damaged_packets_are_skipped_and_counted(tmp_path: Path, faststart: Path) -> None:
    data = bytearray(faststart.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = b"\xff" * 2000
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    video = read_frames(path, fit_small, num_frames=12)
    assert video.damaged > 0
    assert len(video.frames) >= 10


def test_nothing_decodable(tmp_path: Path, faststart: Path) -> None:
    data = bytearray(faststart.read_bytes())
    start = data.index(b"mdat") + 4
    data[start:] = b"\xff" * (len(data) - start)
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    assert "none of its frames can be decoded" in refusal(path)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "flv", "gif", "mpg", "h264", "webp", "jpg"])
def test_flipped_bits(tmp_path: Path, suffix: str) -> None:
    codec, pix_fmt = {"gif": ("gif", "rgb8"), "mpg": ("mpeg2video", "yuv420p")}.get(suffix, ("libx264", "yuv420p"))
    source = tmp_path / f"clip.{suffix}"
    if suffix in ("webp", "jpg"):
        noise = np.random.default_rng(0).integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
        first, *others = map(Image.fromarray, noise)
        first.save(source, **({"save_all": True, "append_images": others, "duration": 40} if suffix == "webp" else {}))
    else:
        write_video(source, 20, rate=25, codec=codec, pix_fmt=pix_fmt, options={})
    whole = source.read_bytes()
    path = tmp_path / f"flipped.{suffix}"
    outcomes = {True: 0, False: 0}
    for seed in range(150):
        rng = random.Random(seed)
        data = bytearray(whole)
        for _ in range(rng.choice([1, 4, 30])):
            # half of them in the header or the trailer, where they hurt
            edge = min(1500, len(data))
            at = rng.choice([rng.randrange(len(data)), rng.randrange(edge), len(data) - 1 - rng.randrange(edge)])
            data[at] ^= 1 << rng.randrange(8)
        if rng.random() < 0.2:
            del data[rng.randrange(1, len(data)) :]
        path.write_bytes(data)
        try:
            video = read_frames(path, fit_small, num_frames=6)
        except VideoError as error:
            assert "\n" not in str(error)
            outcomes[False] += 1
        else:
            assert video.frames.shape[1:] == (48, 64, 3)
            assert len(video.frames) == len(video.timestamps) >= 1
            outcomes[True] += 1
    assert outcomes[True] > 0  # the test would show nothing if every file were refused
