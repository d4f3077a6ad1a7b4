"""Videos that many tests share."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from helpers.videos import write_silence, write_video


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 s at 10 fps, 64x48, a keyframe each second."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", 30)


@pytest.fixture(scope="session")
def faststart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """6 s at 10 fps with noise in it and the header first, so that a cut at the end leaves the header whole."""
    noise = np.random.default_rng(0).integers(0, 256, (60, 48, 64, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("clip") / "faststart.mp4"
    return write_video(path, noise, container_options={"movflags": "faststart"})


@pytest.fixture(scope="session")
def saved_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2.5-VL with its processor."""
    from score_video.testing import save_tiny_model

    folder = tmp_path_factory.mktemp("models") / "qwen2_5_vl"
    save_tiny_model(folder, "qwen2_5_vl")
    return folder


@pytest.fixture(scope="session")
def audio_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "audio.mp4"
    with av.open(str(path), "w") as container:
        write_silence(container, container.add_stream("aac", rate=8000, layout="mono"), 1.0)
    return path
