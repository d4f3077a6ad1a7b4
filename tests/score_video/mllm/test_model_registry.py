"""Every model of transformers that takes videos is supported, or refused for a reason; each supported one is tested."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import transformers
from packaging.version import Version
from tiny_families import MASKED, SHORTENED, works
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES, model_type_to_module_name
from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING_NAMES

from score_video.mllm.adapter import Adapter, find_adapter, supported_models
from score_video.mllm.registry import FAMILIES, REFUSED, family_of_checkpoint

MODELS = Path(transformers.__file__).parent / "models"
# of a model's source: it has features of videos, or says that it reads them
TAKES_VIDEOS = re.compile(r'def get_video_features|input_modalities = \([^)]*"video"')


def folders_that_take_videos() -> set[str]:
    """Names of folders of transformers.models."""
    sources = MODELS.glob("*/modeling_*.py")
    return {source.parent.name for source in sources if TAKES_VIDEOS.search(source.read_text(encoding="utf-8"))}


def test_every_model_that_takes_videos_is_supported_or_refused() -> None:
    known = {*FAMILIES, *REFUSED}
    by_folder = {model_type_to_module_name(kind) for kind in known}
    missing = folders_that_take_videos() - by_folder | set(VIDEO_PROCESSOR_MAPPING_NAMES) - known
    assert not missing, f"new in transformers {transformers.__version__}: say what is done with {sorted(missing)}"


def test_the_walk_finds_what_is_known() -> None:
    found = folders_that_take_videos()
    assert {"qwen2_5_vl", "llava_onevision", "internvl", "instructblipvideo", "perception_lm", "vivit"} <= found
    assert "llama" not in found and len(found) > 20


def test_the_tables_name_what_there_is() -> None:
    assert not set(FAMILIES) & set(REFUSED)
    if Version(transformers.__version__) < Version("5.24"):
        pytest.skip("an older transformers, without the newest families")
    assert {*FAMILIES, *REFUSED} <= set(CONFIG_MAPPING_NAMES)


@pytest.mark.parametrize("name", [*MASKED, *SHORTENED])
def test_the_tiny_models_are_of_their_families(name: str) -> None:
    exactness = "masked" if name in MASKED else "shortened"
    assert FAMILIES[name].exactness == exactness


def test_every_supported_family_is_tested() -> None:
    here = {kind for kind in supported_models() if works(kind)}
    assert here == {*MASKED, *SHORTENED}


def test_a_transformers_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("score_video.mllm.adapter.version", lambda name: "5.18.0")
    model: Any = SimpleNamespace(config=SimpleNamespace(model_type="gemma4"))
    with pytest.raises(TypeError, match=r"of type 'gemma4' \(SimpleNamespace\) needs transformers 5.24 .* got 5.18.0"):
        find_adapter(model)


@pytest.mark.parametrize("kind", [kind for kind in FAMILIES if works(kind)])
def test_adapters_exist_and_say_how_features_go_in(kind: str) -> None:
    adapter = find_adapter(SimpleNamespace(config=SimpleNamespace(model_type=kind)))
    by_embeds = type(adapter).hand_over is Adapter.hand_over or "Glm" in type(adapter).__name__
    assert (adapter.hands_over == "inputs_embeds") == by_embeds
    assert "pixel_values_videos" in adapter.consumed or adapter.mixes_pictures


@pytest.mark.parametrize("kind", REFUSED)
def test_refusals_give_their_reason(kind: str) -> None:
    model: Any = SimpleNamespace(config=SimpleNamespace(model_type=kind))
    with pytest.raises(TypeError, match=re.escape(f"model of type {kind!r} (SimpleNamespace) cannot be compressed: ")):
        find_adapter(model)
    assert REFUSED[kind][0].islower() and not REFUSED[kind].endswith(".")


def test_parts_of_checkpoints() -> None:
    assert family_of_checkpoint("qwen2_5_omni") is FAMILIES["qwen2_5_omni_thinker"]
    assert family_of_checkpoint("qwen2_vl") is FAMILIES["qwen2_vl"]
    assert family_of_checkpoint("llama") is None
