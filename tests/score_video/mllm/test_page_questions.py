"""A further question on the page of ``score app``: its prompt is the processor's, in families unlike each other."""

from __future__ import annotations

import pytest
import torch
from saved_families import PROCESSORS, make_processor
from tiny_families import ALL

pytest.importorskip("starlette", reason="score-video[app] is not installed")
pytest.importorskip("torchvision", reason="processors of videos need torchvision")

from score_video.app.answers import SeenVideo
from score_video.mllm import encode_inputs
from score_video.mllm.adapter import find_adapter
from score_video.mllm.conversation import chat_ids, chat_text, clip_of_frames, processor_inputs

QUESTIONS = "what happens in this video?", "which of the two is red? 1 or 2"


@pytest.mark.parametrize(
    "name", ["gemma4", "molmo2", "minicpmv4_7", "nemotron_h_omni", "qwen3_omni_moe_thinker", "video_llama_3"]
)
def test_another_question(name: str) -> None:
    model, processor = ALL[name]().model, make_processor(name)
    adapter = find_adapter(model)
    frames = torch.randint(0, 256, (8, 16, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    clip = clip_of_frames(frames, fps=4.0)
    options = {**adapter.processor_options, **PROCESSORS[name].call}
    both = []
    for question in QUESTIONS:
        text = chat_text(processor, question)
        with torch.no_grad():
            inputs = processor_inputs(processor, clip, text, options)
            encoded = encode_inputs(model, inputs, visual_layout=adapter.layout_of(len(frames)))
        assert encoded is not None
        both.append(SeenVideo(encoded, chat_ids(processor, text), clip))
    first, expected = both
    seen = first.asked(expected.ids)
    assert seen is not None
    ours, theirs = seen.encoded, expected.encoded
    for part in ("input_ids", "attention_mask", "position_ids"):
        assert torch.equal(getattr(ours.prompt, part), getattr(theirs.prompt, part)), part
    assert ours.prompt.carried.keys() == theirs.prompt.carried.keys()
    for part, values in theirs.prompt.carried.items():
        assert torch.equal(ours.prompt.carried[part], values), part
    assert torch.equal(ours.visuals.features.placeholders, theirs.visuals.features.placeholders)
    torch.testing.assert_close(ours.visuals.features.rows, theirs.visuals.features.rows)
