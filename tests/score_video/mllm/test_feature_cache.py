"""The cache of encoded videos: the tower runs once, what comes back is equal to the bit, and nothing can spoil it."""

from __future__ import annotations

import os
import shutil
import signal
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.videos import write_video
from tiny import FAMILIES, Family
from tiny_processor import TinyProcessor
from torch import Tensor

from score_video.mllm.environment import MllmEnvironment
from score_video.mllm.environment.feature_cache import (
    FeatureCache,
    model_identity,
    processor_identity,
    read_tensors,
    write_tensors,
)

ASKED = [{"question": "what?", "answer": "cat", "options": []}]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), dtype=np.uint8)
    return write_video(tmp_path_factory.mktemp("clips") / "clip.mp4", list(noise))


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl", "llava_onevision"])
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]()


@pytest.fixture(scope="module")
def qwen() -> Family:
    return FAMILIES["qwen2_5_vl"]()


def encode(family: Family, cache: Path | None, video: Path, **options: Any) -> tuple[dict[str, Tensor], int]:
    """All that is known of the video and its question; how often the processor, and with it the tower, ran."""
    environment = MllmEnvironment(family.model, TinyProcessor(family), cache, **{"num_frames": 4, **options})
    batch = environment.encode([{"video": str(video), "questions": ASKED}])
    (row,) = batch.payload.questions[0][0].prompts
    features = batch.payload.features
    tensors = {"tokens": batch.videos.tokens, "ends": batch.videos.cu_seqlens, "columns": batch.videos.columns}
    tensors |= {"frames": batch.videos.tokens_per_frame, "ids": row.prompt.input_ids, "fixed": row.fixed}
    tensors |= {"positions": row.prompt.position_ids, "places": row.features}
    tensors |= {f"deepstack {number}": layer for number, layer in enumerate(features.deepstack)}
    tensors |= {f"fixed {n}": part.rows for n, part in enumerate(features.fixed) if part is not None}
    return tensors, environment.processor.calls


def equal(got: dict[str, Tensor], want: dict[str, Tensor]) -> bool:
    return got.keys() == want.keys() and all(torch.equal(got[name], want[name]) for name in want)


def test_equal_to_the_bit_cold_warm_and_without(family: Family, clip: Path, tmp_path: Path) -> None:
    without, ran = encode(family, None, clip)
    assert ran == 1
    cold, ran = encode(family, tmp_path / "a" / "cache", clip)
    assert ran == 1 and equal(cold, without)
    warm, ran = encode(family, tmp_path / "a" / "cache", clip)
    assert ran == 0 and equal(warm, without)
    if family.model.config.model_type == "llava_onevision":
        assert "fixed 0" in warm
    assert ("deepstack 1" in warm) == (family.model.config.model_type == "qwen3_vl")


def test_bfloat16(clip: Path, tmp_path: Path) -> None:
    family = FAMILIES["qwen2_5_vl"]()
    family.model.to(torch.bfloat16)
    cold, _ = encode(family, tmp_path, clip)
    warm, ran = encode(family, tmp_path, clip)
    assert ran == 0 and cold["tokens"].dtype == torch.bfloat16 and equal(warm, cold)


def test_by_content_and_not_by_name(qwen: Family, clip: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    encode(qwen, cache, clip)
    shutil.copy(clip, tmp_path / "same.mp4")
    assert encode(qwen, cache, tmp_path / "same.mp4")[1] == 0
    write_video(tmp_path / "same.mp4", 8, size=(16, 16))
    assert encode(qwen, cache, tmp_path / "same.mp4")[1] == 1
    assert len(list(cache.iterdir())) == 2


def test_whatever_it_follows_from_is_in_the_key(qwen: Family, clip: Path, tmp_path: Path) -> None:
    encode(qwen, tmp_path, clip)
    assert encode(qwen, tmp_path, clip, num_frames=3)[1] == 1
    assert encode(qwen, tmp_path, clip, max_pixels=100)[1] == 1
    assert encode(qwen, tmp_path, clip, max_tokens_per_forward=100)[1] == 0
    processor = TinyProcessor(qwen)
    other = processor_identity(TinyProcessor(qwen, "{video} {text}"))
    assert processor_identity(processor) == processor_identity(TinyProcessor(qwen)) != other


def test_identity_of_a_model() -> None:
    first, again = FAMILIES["qwen2_5_vl"]().model, FAMILIES["qwen2_5_vl"]().model
    again.config._name_or_path = "elsewhere"
    identity = model_identity(first)
    assert identity == model_identity(again)
    name, parameter = next(item for item in again.named_parameters() if "visual" in item[0])
    with torch.no_grad():
        parameter.view(-1)[-1] += 1e-3
    assert model_identity(again) != identity, name
    assert model_identity(first.to(torch.bfloat16)) != identity
    again = FAMILIES["qwen2_5_vl"]().model
    again.config.vision_config.window_size = 32
    assert model_identity(again) != identity
    again = FAMILIES["qwen2_5_vl"]().model
    again.set_attn_implementation("eager")
    assert model_identity(again) != identity


def cut_off(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    """One bit of the last value."""
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize("damage", [cut_off, flipped, lambda content: b"", lambda content: b"garbage" * 100])
def test_a_damaged_entry_is_made_again(
    qwen: Family, clip: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    want, _ = encode(qwen, tmp_path, clip)
    (entry,) = tmp_path.iterdir()
    content = entry.read_bytes()
    entry.write_bytes(damage(content))
    with pytest.warns(UserWarning, match=rf"{entry} is damaged and made again"):
        got, ran = encode(qwen, tmp_path, clip)
    assert ran == 1 and equal(got, want)
    assert entry.read_bytes() == content
    assert encode(qwen, tmp_path, clip)[1] == 0


def in_children(*works: Callable[[], object]) -> list[int]:
    """Runs them at once in forks of this process; how each ended."""
    children = []
    for work in works:
        child = os.fork()
        if child == 0:
            try:
                work()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(child)
    return [os.waitpid(child, 0)[1] for child in children]


def test_processes_that_share_it(qwen: Family, clip: Path, tmp_path: Path) -> None:
    want, _ = encode(qwen, None, clip)

    def work() -> None:
        for _ in range(5):
            assert equal(encode(qwen, tmp_path, clip)[0], want)
            for entry in tmp_path.glob("*.safetensors"):
                entry.unlink(missing_ok=True)

    assert in_children(work, work, work) == [0, 0, 0]


def test_deleted_while_it_is_read(tmp_path: Path) -> None:
    """By another process: the entry is whole, or not there."""
    entry, tensors = tmp_path / "entry.safetensors", {"rows": torch.arange(1000.0)}
    child = os.fork()
    if child == 0:
        while True:  # until it is killed
            write_tensors(entry, tensors)
            entry.unlink()
    read, until = 0, time.monotonic() + 30
    try:
        while read < 500 and time.monotonic() < until:
            with suppress(FileNotFoundError):
                assert torch.equal(read_tensors(entry)[0]["rows"], tensors["rows"])
                read += 1
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert read > 0


def test_killed_while_writing(qwen: Family, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = Path.write_bytes

    def half(path: Path, content: bytes) -> int:
        write(path, content[: len(content) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
        return 0

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", half)
        (status,) = in_children(lambda: encode(qwen, tmp_path, clip))
    assert os.WTERMSIG(status) == signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".")
    assert encode(qwen, tmp_path, clip)[1] == 1
    assert left.exists()  # it might be of a process that is still at it
    hour_ago = time.time() - 3700
    os.utime(left, (hour_ago, hour_ago))
    assert encode(qwen, tmp_path, clip)[1] == 0
    assert not left.exists()


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match="file"):
        FeatureCache(tmp_path / "file", {})
