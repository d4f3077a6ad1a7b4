"""Hostile videos against the running server: each is refused with a 4xx and a reason, and the server answers the next.

Files as the reader's own tests have them: noise, cuts, flipped bits, playlists, absurd headers; and larger ones than
the settings allow. What is refused, and what is kept of the others, is counted beside vLLM's own metrics.
"""

from __future__ import annotations

import base64
import io
import random
import re
import socket
import struct
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import RATE, needs_vllm, serve
from helpers.videos import write_video
from PIL import Image
from workload import moving_square

from score_video.testing import save_tiny_model

pytestmark = needs_vllm

LIMITS = "megabytes=1,seconds=20,frames=300,pixels=40000,decoded_megabytes=3"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    save_tiny_model(folder / "model", "qwen2_5_vl")
    (folder / "counters").mkdir()
    options = ["--enforce-eager", "--video-pruning-rate", str(RATE), "--max-num-seqs", "4"]
    options += ["--limit-mm-per-prompt", '{"image": 0, "video": 1}']
    variables = {"SCORE_VIDEO_LIMITS": LIMITS, "PROMETHEUS_MULTIPROC_DIR": str(folder / "counters")}
    with serve(folder / "model", folder, "surprise", options, variables=variables) as url:
        yield url


def ask(server: str, url: str) -> Any:
    from openai import OpenAI

    video: Any = {"type": "video_url", "video_url": {"url": url}}
    client = OpenAI(base_url=server, api_key="none", max_retries=0, timeout=120)
    content = [video, {"type": "text", "text": "What happens?"}]
    return client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": content}],
        max_completion_tokens=2,
        extra_body={"ignore_eos": True},
    )


def data_url(content: bytes, kind: str = "video/mp4") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def refusal(server: str, url: str) -> str:
    import openai

    with pytest.raises(openai.APIStatusError) as error:
        ask(server, url)
    assert 400 <= error.value.status_code < 500, error.value
    return str(error.value)


def answers(server: str, folder: Path) -> None:
    """It goes on serving."""
    clip = write_video(folder / "good.mp4", moving_square(0, frames=20), size=(140, 84)).read_bytes()
    assert ask(server, data_url(clip)).usage.completion_tokens == 2


def metrics(server: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{server.removesuffix('/v1')}/metrics") as page:
        lines = page.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


@pytest.fixture
def clip(tmp_path: Path) -> bytes:
    frames = moving_square(1, frames=30)
    return write_video(
        tmp_path / "clip.mp4", frames, size=(140, 84), container_options={"movflags": "faststart"}
    ).read_bytes()


def picture(width: int, height: int) -> bytes:
    """A picture whose header tells another size."""
    file = io.BytesIO()
    Image.new("RGB", (64, 48)).save(file, "png")
    data = bytearray(file.getvalue())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def test_files_that_are_no_videos(server: str, tmp_path: Path, clip: bytes) -> None:
    media = bytearray(clip)
    start = media.index(b"mdat") + 4
    media[start:] = b"\xff" * (len(media) - start)
    hostile = {
        "noise": np.random.default_rng(0).bytes(100_000),
        "text": b"to be or not to be\n" * 100,
        "empty": b"",
        "header cut": clip[: clip.index(b"mdat") // 2],
        "nothing decodable": bytes(media),
        "ffconcat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n/etc/passwd\n#EXT-X-ENDLIST\n",
        "no size": picture(0, 64),
        "absurd size": picture(100_000, 64),
    }
    for name, content in hostile.items():
        said = refusal(server, data_url(content))
        assert "video cannot be read" in said or "video must have" in said, (name, said)
    answers(server, tmp_path)


def test_a_playlist_reaches_no_network(server: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.5)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/clip.ts"
        refusal(server, data_url(f"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{address}\n#EXT-X-ENDLIST\n".encode()))
        with pytest.raises(TimeoutError):
            listening.accept()


def test_flipped_bits(server: str, tmp_path: Path, clip: bytes) -> None:
    """What can still be decoded is answered; what cannot is its client's error."""
    import openai

    outcomes = {"answered": 0, "refused": 0}
    for seed in range(24):
        rng, data = random.Random(seed), bytearray(clip)
        for _ in range(rng.choice([1, 30, 300])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            ask(server, data_url(bytes(data)))
            outcomes["answered"] += 1
        except openai.APIStatusError as error:
            assert 400 <= error.status_code < 500, (seed, error)
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 0, outcomes
    answers(server, tmp_path)


def test_limits(server: str, tmp_path: Path, clip: bytes) -> None:
    long = write_video(tmp_path / "long.mp4", 210, rate=10).read_bytes()
    many = write_video(tmp_path / "many.mp4", 310, rate=60).read_bytes()
    wide = write_video(tmp_path / "wide.mp4", 4, size=(256, 192)).read_bytes()
    pictures = ",".join(base64.b64encode(picture(220, 180)).decode() for _ in range(3))
    # two frames a second are sampled, 36 of 220 x 180 pixels
    frames = write_video(tmp_path / "frames.mp4", 180, size=(220, 180)).read_bytes()
    cases = {
        "at most 3 decoded_megabytes, got 4.2768 (SCORE_VIDEO_LIMITS of the server)": data_url(frames),
        "at most 1 megabytes, got 1.5": data_url(clip + bytes(1_500_000 - len(clip))),
        "at most 20 seconds, got 21": data_url(long),
        "at most 300 frames, got 310": data_url(many),
        "at most 40000 pixels, got 49152": data_url(wide),
        "one of its pictures is none": f"data:video/jpeg;base64,{pictures},bm9uZQ==",
    }
    for said, url in cases.items():
        assert said in refusal(server, url), said
    answers(server, tmp_path)


def test_what_is_counted(server: str, tmp_path: Path) -> None:
    before = metrics(server)
    answered = ask(server, data_url(write_video(tmp_path / "new.mp4", 12, size=(112, 84)).read_bytes()))
    assert answered.usage.prompt_tokens
    for _ in range(2):
        refusal(server, data_url(b"nothing"))
    after = metrics(server)

    def counted(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    assert counted("score_video:videos_total") == 1
    assert counted("score_video:tokens_seen_total") == 24  # four frames are sampled, two are one step of 3 x 4 tokens
    assert counted("score_video:tokens_kept_total") == 12  # at least a whole frame, vLLM's formula has it
    assert counted("score_video:compress_milliseconds_total") > 0
    assert counted('score_video:refused_total{reason="unreadable"}') == 2
    assert any(re.match(r"vllm:prompt_tokens_total\{", name) for name in after)  # its own are there too
