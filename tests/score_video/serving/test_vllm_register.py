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


def test_refuses_a_vllm_that_lacks_something(tmp_path: Path) -> None:
    """One whose sources do not have a function under the name that the plugin calls it by."""
    code = """
from dataclasses import replace
from score_video.serving import vllm_check
count = next(need for need in vllm_check.NEEDS if need.name == "compute_retained_tokens_count")
vllm_check.NEEDS = (replace(count, name="count_retained_tokens"),)
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
    assert last.startswith("RuntimeError: SCORE_VIDEO_COMPRESSOR is set, but score-video relies on what vLLM 0.32.0")
    assert ": count_retained_tokens in vllm/multimodal/video_prune/evs.py with the parameters" in last
    assert done.stdout.strip() == "vllm.multimodal.video_prune.evs"
    assert run(code, None, tmp_path).returncode == 0  # not set: not its business


def test_a_release_that_was_not_run_is_served_and_said_to_be(tmp_path: Path) -> None:
    code = """
import vllm
vllm.__version__ = "0.33.0"
from score_video.serving.vllm_plugin import register
register()
"""
    done = run(code, "surprise", tmp_path)
    assert done.returncode == 0
    assert (
        "vLLM 0.33.0 has all that score-video relies on, but its tests have run on 0.32.0 alone"
        in done.stdout + done.stderr
    )


def test_every_architecture_that_vllm_prunes_is_known(tmp_path: Path) -> None:
    """Asked of the models themselves. What does not import here (one needs a GPU's attention) cannot be asked."""
    code = """
import importlib, vllm
pruned, asked = set(), 0
for name, model in vllm.ModelRegistry.models.items():
    try:
        kind = getattr(importlib.import_module(model.module_name), model.class_name)
    except ImportError:
        continue
    asked += 1
    if getattr(kind, "supports_multimodal_pruning", False):
        pruned.add(name)
from score_video.serving.architectures import ARCHITECTURES
assert asked > 200, asked
print("unknown", sorted(pruned - ARCHITECTURES.keys()), "not there", sorted(ARCHITECTURES.keys() - pruned))
"""
    assert run(code, None, tmp_path).stdout.strip().splitlines()[-1] == "unknown [] not there []"


def test_classes_of_every_architecture(tmp_path: Path) -> None:
    code = """
from score_video.serving import vllm_models
from score_video.serving.architectures import ARCHITECTURES
for name, known in ARCHITECTURES.items():
    made = getattr(vllm_models, name)
    assert made.__name__ == name and getattr(vllm_models, name) is made
    assert made.supports_multimodal_pruning and hasattr(made, "_processor_factory"), name
    assert ("_processor_factory" in vars(made)) == (known.kind in ("run", "timed")), name
try:
    vllm_models.NoSuchModel
except AttributeError as error:
    print(error)
"""
    done = run(code, "surprise", tmp_path)
    assert done.stdout.strip().endswith("has no attribute 'NoSuchModel'"), done.stderr[-2000:]


def test_refuses_a_wrong_setting_and_models_it_does_not_know(tmp_path: Path) -> None:
    register = "from score_video.serving.vllm_plugin import register; register(); register(); "
    wrong = run(register, "no-such-thing", tmp_path)
    assert wrong.returncode == 1
    assert "ScoreError: SCORE_VIDEO_COMPRESSOR must be a folder or a hub id" in wrong.stderr.strip().splitlines()[-1]
    ask_vllm = "from vllm.multimodal.video_prune import vidcom2; vidcom2.compute_retention_mask()"
    other = run(register + ask_vllm, "surprise", tmp_path)
    assert "score-video cannot compress videos for this model, only for Qwen2_5_VL" in other.stderr
