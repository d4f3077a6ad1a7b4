"""Pixels that stay bytes until they are needed: the processor's to the bit, and no more floats than are seen."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
import transformers
from saved_families import PROCESSORS, make_processor
from tiny_families import ALL
from torch import Tensor

from score_video import Compressor
from score_video.methods import RandomMethod
from score_video.mllm import compress_inputs, encode_inputs, gated, partial_tower, pixels
from score_video.mllm.conversation import Clip, chat_text, model_inputs, processor_inputs
from score_video.mllm.pixels import NORMALISATION, VIDEOS, float_pixels, normalisation_of

pytest.importorskip("torchvision")
pytestmark = pytest.mark.usefixtures("without_gradients")

THEIRS = {"do_rescale": True, "do_normalize": True}
"""Said, the processor makes floats itself."""

made = functools.cache(lambda name: ALL[name]())


@functools.cache
def processor_of(name: str) -> Any:
    """Which normalises each colour otherwise."""
    processor = make_processor(name)
    processor.video_processor.image_mean, processor.video_processor.image_std = [0.1, 0.2, 0.3], [0.4, 0.5, 0.9]
    return processor


def in_bytes(name: str) -> bool:
    return type(processor_of(name).video_processor).__name__ in pixels.PROCESSORS


HERE = [name for name in PROCESSORS if name in ALL and in_bytes(name)]


def clip_of(frames: int, height: int, width: int) -> Clip:
    """Of every byte that there is."""
    random = torch.Generator().manual_seed(frames)
    shown = torch.randint(0, 256, (frames, height, width, 3), dtype=torch.uint8, generator=random)
    return Clip(shown, torch.arange(frames, dtype=torch.float64) / 2, frames / 2)


def differing(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> list[str]:
    assert mine.keys() == theirs.keys()
    return [
        name for name in mine if mine[name].dtype != theirs[name].dtype or not torch.equal(mine[name], theirs[name])
    ]


@pytest.mark.parametrize("size", [(30, 46), (16, 24), (90, 150)])
@pytest.mark.parametrize("name", HERE)
def test_inputs_are_those_of_the_processor_to_the_bit(name: str, size: tuple[int, int]) -> None:
    """Frames that are scaled up, left as they are, and scaled down; an even number of them and an odd one."""
    processor = processor_of(name)
    options = dict(PROCESSORS[name].call)
    for frames in (6, 5) if name != "ernie4_5_vl_moe" else (6, 4):
        clip, text = clip_of(frames, *size), chat_text(processor, "what?")
        theirs = processor_inputs(processor, clip, text, {**options, **THEIRS})
        assert differing(processor_inputs(processor, clip, text, options), theirs) == []
        assert theirs[VIDEOS].is_floating_point() and theirs[VIDEOS].unique().numel() > 200


def test_which_processors_give_bytes() -> None:
    """Each that this transformers has is a family's here; those of towers that run in part are listed, but for one."""
    kinds = {name: type(processor_of(name).video_processor).__name__ for name in PROCESSORS if name in ALL}
    assert set(kinds.values()) >= {name for name in pixels.PROCESSORS if hasattr(transformers, name)}
    assert {name for name in set(gated.TOKENS) & set(kinds) if kinds[name] not in pixels.PROCESSORS} == {
        "video_llama_3"
    }


def test_what_the_processor_is_set_to_is_heeded() -> None:
    processor = make_processor("qwen2_5_vl")
    assert normalisation_of(processor, {"image_mean": [0.5, 0.5, 0.5]}) is None
    for name in ("do_normalize", "do_rescale"):
        setattr(processor.video_processor, name, False)
        assert normalisation_of(processor, {}) is None
        setattr(processor.video_processor, name, True)
    assert normalisation_of(processor, {}) is not None
    assert normalisation_of(object(), {}) is None


def inputs_of(name: str) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
    """The model, and its inputs of one clip: with bytes, and as the processor makes them."""
    model, processor = made(name).model, processor_of(name)
    clip, text = clip_of(6, 30, 46), chat_text(processor, "what?")
    theirs = processor_inputs(processor, clip, text, THEIRS)
    return model, model_inputs(model, processor, clip, text), theirs


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"])
def test_bytes_and_floats_give_the_same_features(name: str) -> None:
    model, mine, theirs = inputs_of(name)
    assert mine[VIDEOS].dtype == torch.uint8 and mine.keys() - theirs.keys() == {NORMALISATION}
    assert torch.equal(float_pixels(mine), theirs[VIDEOS])
    one, other = encode_inputs(model, mine), encode_inputs(model, theirs)
    assert one is not None and other is not None
    assert torch.equal(one.visuals.features.rows, other.visuals.features.rows)
    assert dict(one.others).keys() == dict(other.others).keys()


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v"])
def test_behind_a_gate_floats_are_made_of_what_the_tower_sees(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, mine, theirs = inputs_of(name)
    gate = Compressor(RandomMethod(3), 0.1, before_tower=Compressor(RandomMethod(3), 0.3), halo=1).gate
    rows: list[int] = []

    def noted(inputs: Any, index: Tensor | None = None) -> Tensor:
        made = float_pixels(inputs, index)
        rows.append(len(made))
        return made

    monkeypatch.setattr(partial_tower, "float_pixels", noted)
    one, other = encode_inputs(model, mine, gate=gate), encode_inputs(model, theirs, gate=gate)
    assert one is not None and other is not None and one.visuals.seen is not None
    assert torch.equal(one.visuals.features.rows, other.visuals.features.rows)
    patches = len(mine[VIDEOS]) // len(one.visuals.videos.tokens)
    assert rows == [len(one.visuals.seen.encoded) * patches] * 2 and rows[0] < len(mine[VIDEOS])


def test_the_stock_model_refuses_bytes() -> None:
    """It would take them for pixels without a word."""
    model, mine, _ = inputs_of("qwen2_5_vl")
    with pytest.raises(ValueError, match=NORMALISATION):
        model.generate(**mine, max_new_tokens=1)
    compressor = Compressor("uniform", 0.5)
    want = model.generate(**compress_inputs(model, mine, compressor), max_new_tokens=3, do_sample=False)
    with compressor.wrap(model):
        got = model.generate(**mine, max_new_tokens=3, do_sample=False)
    assert torch.equal(got[0, -3:], want[0, -3:])


def test_in_the_models_dtype() -> None:
    """Normalised in float32, then rounded, as inputs of the processor are."""
    _, mine, theirs = inputs_of("qwen2_5_vl")
    floats = pixels.with_floats(mine, torch.bfloat16)
    assert torch.equal(floats[VIDEOS], theirs[VIDEOS].bfloat16()) and NORMALISATION not in floats
    assert pixels.with_floats(theirs)[VIDEOS] is theirs[VIDEOS]
