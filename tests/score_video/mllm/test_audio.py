"""Omni models: audio beside a video, and a video's own sound, stay whole."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from by_hand import by_hand
from masked import TOLERANCE, compress, difference, dropped, masked
from packaging.version import Version
from saved_families import make_processor
from test_hybrids import TYPED
from tiny import END, START, VIDEO, Prompts
from tiny_configs import AUDIO, BEGIN, FINISH
from tiny_families import ALL, MASKED, SHORTENED

from score_video.compressor import Compressor
from score_video.methods import RandomMethod
from score_video.mllm import encode_inputs

OMNI = [name for name in ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker") if name in MASKED]
FRAMES = 8
CLIP = ("video", 4)

made = functools.cache(lambda name: ALL[name]())

# of families without rows of positions for audio: placeholders of one sound, and what the processor makes of so many
HEARD: dict[str, tuple[int, Callable[[int, torch.Generator], dict[str, torch.Tensor]]]] = {
    "dots3_note": (
        10,
        lambda sounds, generator: {
            "input_features": torch.randn(sounds, 16, 80, generator=generator),
            "chunk_sample_lengths": torch.full((sounds,), 80 * 160),
        },
    ),
    "gemma4": (
        10,
        lambda sounds, generator: {
            "input_features": torch.randn(sounds, 40, 128, generator=generator),
            "input_features_mask": torch.ones(sounds, 40, dtype=torch.bool),
        },
    ),
    "gemma4_unified": (
        7,
        lambda sounds, generator: {
            "input_features": torch.randn(sounds, 7, 24, generator=generator),
            "input_features_mask": torch.ones(sounds, 7, dtype=torch.bool),
        },
    ),
    "muse_spark": (
        5,
        lambda sounds, generator: {"input_values": torch.randn(sounds, 5 * 48, generator=generator)},
    ),
    "nemotron_h_omni": (
        5,
        lambda sounds, generator: {"input_features": torch.randn(sounds, 40, 16, generator=generator)},
    ),
}


def answer(model: Any, inputs: Any) -> torch.Tensor:
    torch.manual_seed(0)
    output = model.generate(
        **inputs, max_new_tokens=5, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    return torch.stack(output.logits)


def check(model: Any, inputs: dict[str, Any]) -> None:
    """A compressed prompt is equal to the masked one, and has all of its audio."""
    with torch.no_grad():
        encoded = encode_inputs(model, inputs)
        assert encoded is not None
        whole = encoded.compress(Compressor("uniform", 1.0).select(encoded.visuals.videos))
        assert difference(answer(model, whole), answer(model, inputs)) <= TOLERANCE
        shorter = encoded.compress(Compressor(RandomMethod(3), 0.4).select(encoded.visuals.videos))
        assert shorter.selected is not None
        kept = set(shorter.selected.index.tolist())
        places = (inputs["input_ids"] == VIDEO).nonzero().tolist()
        gone = [(row, column) for number, (row, column) in enumerate(places) if number not in kept]
        ours = answer(model, shorter)
        assert difference(ours, answer(model, masked(model, inputs, gone))) <= TOLERANCE
        assert (shorter["input_ids"] == AUDIO).sum() == (inputs["input_ids"] == AUDIO).sum() > 0
        deaf = {**shorter, "input_features": torch.zeros_like(shorter["input_features"])}
        assert difference(answer(model, deaf), ours) > 1e-3


@pytest.mark.parametrize("name", OMNI)
def test_audio_beside_a_video(name: str) -> None:
    pytest.importorskip("torchvision")
    if Version(transformers.__version__) < Version("5.24"):
        pytest.skip("processors are made by names that transformers has from 5.24 on")
    random = np.random.default_rng(0)
    text = "listen <|audio_bos|><|AUDIO|><|audio_eos|> look <|vision_bos|><|VIDEO|><|vision_eos|> what?"
    inputs = make_processor(name)(
        text=[text],
        videos=[[torch.from_numpy(random.integers(0, 256, (FRAMES, 3, 16, 24), dtype=np.uint8))]],
        audio=[random.standard_normal(16000).astype(np.float32)],
        video_metadata=[
            {"fps": 2.0, "total_num_frames": FRAMES, "frames_indices": list(range(FRAMES)), "duration": 4.0}
        ],
        do_sample_frames=False,
        min_pixels=64,
        max_pixels=1024,
        return_tensors="pt",
    )
    check(made(name).model, {key: value for key, value in inputs.items() if isinstance(value, torch.Tensor)})


def test_a_videos_own_sound() -> None:
    """Less than two seconds of it, so that all that is seen stands in front of all that is heard."""
    if "qwen2_5_omni_thinker" not in OMNI:
        pytest.skip("an older transformers")
    generator = torch.Generator().manual_seed(0)
    seen, heard = 4 * 6, 25  # four frames of 2 x 3 tokens; of 100 frames of sound
    ids = [20, 21, START, BEGIN, *[VIDEO] * seen, *[AUDIO] * heard, FINISH, END, 30, 31, 32]
    inputs = {
        "input_ids": torch.tensor([ids]),
        "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        "pixel_values_videos": torch.randn(4 * 24, 96, generator=generator),
        "video_grid_thw": torch.tensor([[4, 4, 6]]),
        "video_second_per_grid": torch.tensor([0.08]),
        "input_features": torch.randn(1, 16, 100, generator=generator),
        "feature_attention_mask": torch.ones(1, 100, dtype=torch.long),
        "use_audio_in_video": True,
    }
    check(made("qwen2_5_omni_thinker").model, inputs)


def test_every_family_that_hears_is_here() -> None:
    """Those whose stock model has a method for audio."""
    hear = {name for name in ALL if any(hasattr(module, "get_audio_features") for module in made(name).model.modules())}
    assert hear == {*OMNI, *(name for name in HEARD if name in SHORTENED)}


@pytest.mark.parametrize("prompts", [[[5, CLIP, 6]], [[5, CLIP, 6], [9, CLIP, 4]]], ids=["one", "padded"])
@pytest.mark.parametrize("name", [name for name in HEARD if name in SHORTENED])
@torch.no_grad()
def test_a_sound_behind_a_video(name: str, prompts: Prompts) -> None:
    """Its tokens stay, and the answer is the stock model's on the same embeddings, those of the sound among them."""
    family, (count, hear) = made(name), HEARD[name]
    batch = family.batch(prompts)
    for row in batch.ids:  # in front of the last two tokens of the text behind the video
        row[-2:-2] = [AUDIO] * count
    for values in batch.pixels.values():
        if isinstance(values, list):
            for row in values:
                row[-2:-2] = [3] * count  # the type of audio
    batch.pixels |= hear(len(prompts), torch.Generator().manual_seed(0))

    compressed = compress(family, batch, Compressor(RandomMethod(3), 0.3)).compressed
    assert (compressed["input_ids"] == AUDIO).sum() == count * len(prompts)
    types = ("mm_token_type_ids",) if name in TYPED else ()
    hand = by_hand(family.model, batch.inputs(), dropped(batch, compressed.kept), types)
    torch.manual_seed(0)
    ours = family.model.generate(
        **compressed, max_new_tokens=5, do_sample=False, output_logits=True, return_dict_in_generate=True
    )
    prompt, steps = hand.logits(ours.sequences[:, compressed.prompt_length :])
    logits = family.model(**compressed).logits[compressed["attention_mask"].bool()]
    assert difference(logits, prompt) <= TOLERANCE
    assert difference(torch.stack(ours.logits), steps) <= TOLERANCE
    several = family.model.generate(
        **compressed,
        max_new_tokens=1,
        do_sample=True,
        num_return_sequences=2,
        output_logits=True,
        return_dict_in_generate=True,
    )
    assert difference(several.logits[0], steps[0].repeat_interleave(2, 0)) <= TOLERANCE

    sound = next(key for key in ("input_features", "input_values") if key in batch.pixels)
    deaf = family.model(**{**compressed, sound: compressed[sound].flip(-1)}).logits
    assert difference(deaf[compressed["attention_mask"].bool()], logits) > 1e-3
