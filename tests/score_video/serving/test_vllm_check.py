"""What the plugin asks of a vLLM: that the check passes the releases it should, and names whatever is taken away."""

from __future__ import annotations

import ast
import importlib.util
import shutil
from pathlib import Path

import pytest

from score_video.serving.vllm_check import installed, missing
from score_video.serving.vllm_needs import NEEDS, Need

RELEASES = Path(__file__).parents[3] / "build" / "vllm-releases"


def a_vllm() -> Path:
    """Sources of a vLLM: the installed one's, or one that was fetched."""
    if importlib.util.find_spec("vllm") is not None:
        return installed()
    for folder in sorted(RELEASES.glob("*/ready")):
        return folder.parent / "vllm"
    pytest.skip("vLLM is not installed, and make check-vllm has fetched none")


@pytest.mark.parametrize("release", ["0.32.0", "0.33.0"])
def test_releases_that_pass(release: str) -> None:
    folder = RELEASES / release
    if not (folder / "ready").exists():
        pytest.skip(f"the sources of vLLM {release} are not here: make check-vllm fetches them, 330 MB")
    assert missing(folder / "vllm") == []


def test_the_installed_one_passes() -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed")
    assert missing(installed()) == []


def copied(folder: Path) -> Path:
    """The files that the check reads, to be changed."""
    source = a_vllm()
    for file in {need.file for need in NEEDS}:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source / file, folder / file)
    return folder


def test_nothing_is_there(tmp_path: Path) -> None:
    assert missing(tmp_path) == [str(need) for need in NEEDS]


CHANGES = {
    "a function's new name": (
        "multimodal/video_prune/evs.py",
        "def compute_retained_tokens_count(",
        "def count_retained_tokens(",
        "compute_retained_tokens_count in vllm/multimodal/video_prune/evs.py with the parameters (tokens_per_frame, ",
    ),
    "a parameter's new name": (
        "multimodal/video_prune/vidcom2.py",
        "tokens_per_frame: int, num_frames: int, q: float",
        "tokens_per_frame: int, num_frames: int, rate: float",
        "compute_retained_tokens_count in vllm/multimodal/video_prune/vidcom2.py with",
    ),
    "one more that must be given": (
        "multimodal/video_prune/evs.py",
        "tokens_per_frame: int, num_frames: int, q: float",
        "tokens_per_frame: int, num_frames: int, q: float, device: str",
        "compute_retained_tokens_count in vllm/multimodal/video_prune/evs.py with",
    ),
    "an argument's new name in a call": (
        "v1/worker/gpu/model_states/mm_pruning.py",
        "num_computed_tokens=num_computed,",
        "computed=num_computed,",
        "MultiModalPruner.recompute in vllm/v1/worker/gpu/model_states/mm_pruning.py that calls "
        "self.model.recompute_mrope_positions with input_ids, ",
    ),
    "a key's new name in what a tower is told": (
        "model_executor/models/qwen2_5_vl.py",
        'encoder_metadata["cu_window_seqlens"]',
        'encoder_metadata["window_ends"]',
        "Qwen2_5_VisionTransformer.forward in vllm/model_executor/models/qwen2_5_vl.py that reads of encoder_metadata "
        "rotary_pos_emb_cos, ",
    ),
    "one key more that a tower wants": (
        "model_executor/models/qwen3_vl.py",
        'encoder_metadata.get("sequence_lengths")',
        'encoder_metadata.get("sequence_lengths", encoder_metadata.get("lengths"))',
        "sequence_lengths and nothing else",
    ),
    "another way to a video's tower": (
        "model_executor/models/qwen3_vl.py",
        "video_embeddings = self._process_video_input(multimodal_input)",
        "video_embeddings = self.encode_videos(multimodal_input)",
        "with `video_embeddings = self._process_video_input(multimodal_input)`",
    ),
    "another statement": (
        "model_executor/models/qwen3_vl.py",
        "tokens_per_frame = [num_tokens] + [0] * (num_frames - 1)",
        "tokens_per_frame = [0] * (num_frames - 1) + [num_tokens]",
        "with `tokens_per_frame = [num_tokens] + [0] * (num_frames - 1)`",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_names_what_was_changed(change: str, tmp_path: Path) -> None:
    file, old, new, said = CHANGES[change]
    folder = copied(tmp_path)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    (lacking,) = missing(folder)
    assert said in lacking


def test_an_optional_parameter_more_changes_nothing(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    file = folder / "multimodal/video_prune/evs.py"
    old = "tokens_per_frame: int, num_frames: int, q: float"
    file.write_text(file.read_text().replace(old, f"{old}, device: str | None = None"))
    assert missing(folder) == []


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "logger.py").write_text("def init_logger(:")
    assert missing(folder) == ["init_logger in vllm/logger.py with the parameters (name)"]


@pytest.mark.parametrize("need", [need for need in NEEDS if need.line is not None], ids=lambda need: need.name)
def test_lines_are_as_python_writes_them(need: Need) -> None:
    """Or they would be found in no release."""
    assert ast.unparse(ast.parse(need.line or "")) == need.line
