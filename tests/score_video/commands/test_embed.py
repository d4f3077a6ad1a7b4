"""``score embed``: files of compressed videos, what they are made of, and going on where it was stopped."""

from __future__ import annotations

import json
import tarfile
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.videos import write_video

from score_video.cli import main
from score_video.commands.embed import compressor_identity, decider_identity
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.methods import RandomMethod
from score_video.mllm.compressed_video import CompressedVideo, read_about
from score_video.mllm.load import load_model, load_processor
from score_video.serving import tar_files
from score_video.serving.tar_files import read_tars
from score_video.testing import save_tiny_model

pytestmark = pytest.mark.skipif(find_spec("torchvision") is None, reason="needs torchvision: make test has it")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_tiny_model(folder, "qwen2_5_vl")
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(0)
    clips = [random.integers(0, 256, (8, 56, 84, 3), dtype=np.uint8) for _ in range(2)]
    return [write_video(folder / f"{n}.mp4", list(clip), size=(84, 56)) for n, clip in enumerate(clips)]


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def embed(*arguments: object) -> int:
    return main(["embed", *map(str, arguments), "--frames", "4", "--out", "kept"])


def test_writes_what_ask_takes(model: Path, videos: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    assert embed(*videos, "--model", model, "--compressor", "evs", "--retention", 0.3) == 0
    assert "2 written (6 of 24 visual tokens kept), 0 already there" in capfd.readouterr().out
    assert sorted(path.name for path in Path("kept").iterdir()) == ["0.safetensors", "1.safetensors"]
    about = read_about("kept/0.safetensors")
    assert (about["video"], about["decides"], about["retention"]) == ("0.mp4", "evs", 0.3)
    assert main(["ask", "kept/0.safetensors", "What?", "--model", str(model), "--max-new-tokens", "2"]) == 0
    assert "3 of 12 visual tokens kept" in capfd.readouterr().out


def test_goes_on_where_it_was_stopped(model: Path, videos: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    assert embed(videos[0], "--model", model, "--compressor", "surprise") == 0
    first = Path("kept/0.safetensors").stat().st_mtime_ns
    assert embed(*videos, "--model", model, "--compressor", "surprise") == 0
    assert "1 written (1 of 12 visual tokens kept), 1 already there" in capfd.readouterr().out
    assert Path("kept/0.safetensors").stat().st_mtime_ns == first
    Path("kept/0.safetensors").write_bytes(b"cut off")
    assert embed(*videos, "--model", model, "--compressor", "surprise") == 0
    assert "1 written (1 of 12 visual tokens kept), 1 already there" in capfd.readouterr().out
    assert read_about("kept/0.safetensors")["video"] == "0.mp4"


def test_what_is_there_must_be_of_the_same(
    model: Path, videos: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert embed(videos[0], "--model", model, "--compressor", "surprise") == 0
    before = Path("kept/0.safetensors").read_bytes()
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "0.mp4"
    other.write_bytes(videos[1].read_bytes())
    save_tiny_model(tmp_path / "model", "qwen2_5_vl", layers=3)
    cases = {
        "must be of compressor 'norm' (": (videos[0], "--model", model, "--compressor", "norm"),
        "must be of video '0.mp4' (": (other, "--model", model, "--compressor", "surprise"),
        f"must be of model '{tmp_path}/model' (": (videos[0], "--model", "model", "--compressor", "surprise"),
        "'size': 28}, and was made of frames {": (
            *(videos[0], "--model", model, "--compressor", "surprise", "--size", 28),
        ),
    }
    for said, arguments in cases.items():
        capfd.readouterr()
        assert embed(*arguments) == 2
        error = capfd.readouterr().err
        assert said.replace(f"'{tmp_path}/model'", "'model'") in error and error.count("\n") == 1
        assert Path("kept/0.safetensors").read_bytes() == before
    assert embed(videos[0], "--model", model, "--compressor", "norm", "--overwrite") == 0
    assert read_about("kept/0.safetensors")["decides"] == "norm"


def test_a_broken_video_is_left_out(model: Path, videos: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    Path("broken.mp4").write_bytes(b"no video" * 100)
    assert embed("broken.mp4", "missing.mp4", videos[1], "--model", model, "--compressor", "surprise") == 1
    out, error = capfd.readouterr()
    assert "1 written" in out
    lines = error.splitlines()
    assert len(lines) == 2 and lines[0].startswith("score: broken.mp4: broken.mp4: not a video file")
    assert lines[1].startswith("score: missing.mp4: ")
    assert [path.name for path in Path("kept").iterdir()] == ["1.safetensors"]


def test_refuses_two_of_one_name(model: Path, videos: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    assert embed(videos[0], videos[0].with_suffix(".mkv"), "--model", model) == 2
    assert "videos must have different names, got " in capfd.readouterr().err
    assert embed(videos[0], videos[0], "--model", model) == 2
    assert not Path("kept").exists()


def test_processes_share_the_work(model: Path, videos: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    shared = (*videos, "--model", model, "--compressor", "surprise")
    assert embed(*shared, "--shard", "2/2") == 0
    assert [path.name for path in Path("kept").iterdir()] == ["1.safetensors"]
    assert embed(*shared, "--shard", "1/2") == 0
    capfd.readouterr()
    assert embed(*shared) == 0
    assert "0 written (0 of 0 visual tokens kept), 2 already there" in capfd.readouterr().out
    assert embed(*shared, "--shard", "3/2") == 2
    assert "--shard must be I/N with I from 1 to N, got 3/2" in capfd.readouterr().err
    assert embed(*shared, "--shard", "half") == 2
    assert "--shard must be I/N, as in 2/8, got 'half'" in capfd.readouterr().err


def test_tar_files(model: Path, videos: list[Path], capfd: pytest.CaptureFixture[str]) -> None:
    Path("broken.mp4").write_bytes(b"no video" * 100)
    shared = (videos[0], "broken.mp4", videos[1], "--model", model, "--compressor", "surprise", "--tar", 1)
    assert embed(*shared) == 1
    assert "1 tar file of 2 videos" in capfd.readouterr().out
    tar = Path("kept/001-of-001-00000.tar")
    with tarfile.open(tar) as archive:
        names = ["000000000.safetensors", "000000000.json", "000000002.safetensors", "000000002.json"]
        assert archive.getnames() == names
        for name, file in ((names[0], "0"), (names[2], "1")):
            content = archive.extractfile(name)
            assert content is not None and content.read() == Path(f"kept/{file}.safetensors").read_bytes()
        about = archive.extractfile("000000002.json")
        assert about is not None and json.load(about)["video"] == "1.mp4"
    before = tar.read_bytes()
    stale = Path("kept/001-of-001-00001.tar")
    stale.write_bytes(b"")
    assert embed(*shared) == 1
    assert tar.read_bytes() == before and not stale.exists()

    network, processor = load_model(str(model), torch.device("cpu")), load_processor(str(model))
    read = list(read_tars([tar], network, processor))
    assert [video.about["video"] for video in read] == ["0.mp4", "1.mp4"]
    wanted = CompressedVideo.load("kept/1.safetensors", network, processor)
    assert torch.equal(read[1].encoded.features.rows, wanted.encoded.features.rows)
    tar.write_bytes(b"no tar" * 1000)
    with pytest.raises(ScoreError, match=r"00000\.tar must be a tar file of score embed: "):
        list(read_tars([tar], network, processor))


def test_how_large_tar_files_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_files, "read_about", lambda path: {"video": path.name})
    files = {}
    for number, size in enumerate((400_000, 500_000, 600_000, 1_500_000, 100)):
        files[number] = tmp_path / f"{number}.safetensors"
        files[number].write_bytes(bytes(size))
    held = []
    for tar in tar_files.write_tars(files, tmp_path, "set", 1):
        with tarfile.open(tar) as archive:
            held.append([int(name[:9]) for name in archive.getnames() if name.endswith(".json")])
    assert held == [[0, 1], [2], [3], [4]]


def test_identity_of_compressors() -> None:
    one = compressor_identity(Compressor("surprise"))
    assert compressor_identity(Compressor("surprise")) == one
    others = (Compressor("surprise", 0.2), Compressor("norm"), Compressor("surprise", selection="systematic"))
    others += (Compressor(RandomMethod(1)), Compressor(RandomMethod(2)), Compressor())
    gate = Compressor("uniform", 0.3)
    others += (Compressor("surprise", before_tower=gate), Compressor("surprise", before_tower=gate, halo=1))
    others += (Compressor("surprise", before_tower=Compressor("uniform", 0.4)),)
    assert len({one, *map(compressor_identity, others)}) == 10
    deciders = [Compressor("surprise"), *others[-3:]]
    assert len(set(map(decider_identity, deciders))) == 4
    assert [decider_identity(replace(c, retention=0.2)) for c in deciders] == list(map(decider_identity, deciders))

    class Rule:
        def scores(self, videos: object) -> None: ...

    with pytest.raises(ScoreError, match="compressor must be a policy or a rule that comes with score, got Rule"):
        compressor_identity(Compressor(Rule()))  # type: ignore[arg-type]
