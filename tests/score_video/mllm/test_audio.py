"""Omni models: audio beside a video, and a video's own sound, stay whole."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from masked import difference, masked
from packaging.version import Version
from saved_families import make_processor
from test_exactness import TOLERANCE
from tiny import END, START, VIDEO
from tiny_configs import AUDIO, BEGIN, FINISH
from tiny_families import MASKED

from score_video.compressor import Compressor
from score_video.methods import RandomMethod
from score_video.mllm import encode_inputs

OMNI = [name for name in ("qwen2_5_omni_thinker", "qwen3_omni_moe_thinker") if name in MASKED]
FRAMES = 8

made = functools.cache(lambda name: MASKED[name]())


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
