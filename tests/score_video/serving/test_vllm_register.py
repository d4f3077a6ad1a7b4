"""The plugin's entry point beside a real vLLM: what it refuses. Each in a process of its own, which it would change."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from engines import environment, needs_vllm

pytestmark = needs_vllm


def run(code: str, setting: str | None, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment(setting), capture_output=True, text=True, timeout=300)


def test_vllm_finds_it(tmp_path: Path) -> None:
    code = "from vllm.plugins import load_plugins_by_group as load; print(load('vllm.general_plugins')['score_video'])"
    assert "function register" in run(code, None, tmp_path).stdout


def test_refuses_a_vllm_it_does_not_know(tmp_path: Path) -> None:
    code = """
import vllm
vllm.__version__ = "0.99.1"
from score_video.serving.vllm_plugin import register
try:
    register()
finally:
    from vllm.multimodal.video_prune import evs
    print(evs.compute_retention_mask.__module__)
"""
    done = run(code, "surprise", tmp_path)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError: SCORE_VIDEO_COMPRESSOR is set, but score-video does not know vLLM 0.99.1")
    assert done.stdout.strip() == "vllm.multimodal.video_prune.evs"
    assert run(code, None, tmp_path).returncode == 0  # not set: not its business


def test_refuses_a_wrong_setting_and_models_it_does_not_know(tmp_path: Path) -> None:
    register = "from score_video.serving.vllm_plugin import register; register(); register(); "
    wrong = run(register, "no-such-thing", tmp_path)
    assert wrong.returncode == 1
    assert "ScoreError: SCORE_VIDEO_COMPRESSOR must be a folder or a hub id" in wrong.stderr.strip().splitlines()[-1]
    ask_vllm = "from vllm.multimodal.video_prune import vidcom2; vidcom2.compute_retention_mask()"
    other = run(register + ask_vllm, "surprise", tmp_path)
    assert "score-video cannot compress videos for this model, only for Qwen2_5_VL" in other.stderr
