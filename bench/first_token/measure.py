"""Times of a way to the first token, by phase: transformers alone, or what ``score ask`` does."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessorList

from bench.first_token.setting import QUESTION, Way
from score_video.compressor import Compressor
from score_video.mllm.ask import FirstToken, ask, warm_up_clip
from score_video.mllm.conversation import Clip, chat_text, processor_inputs
from score_video.mllm.families.general import core
from score_video.progress import Phases, synchronize

DECODE, PROCESSOR, GATE, TOWER, COMPRESSION, PREFILL = PHASES = (
    "decode",
    "processor",
    "gate",
    "vision tower",
    "compression",
    "prefill",
)
"""As :func:`score_video.mllm.ask.ask` calls them, in order."""

THEIRS = {"do_rescale": True, "do_normalize": True}
"""What a processor of transformers does anyway; said, it makes floats of all pixels itself."""


@dataclass(frozen=True)
class Measured:
    """One run of a way.

    Attributes:
        milliseconds: by phase, without "decode".
        text: what the model says.
        tokens, encoded, kept: of the video, of these seen by the vision tower, and left in the prompt.
        prompt: tokens of the prompt that the model gets.
    """

    milliseconds: dict[str, float]
    text: str
    tokens: int
    encoded: int
    kept: int
    prompt: int


def measure(model: Any, processor: Any, clip: Clip, way: Way, new_tokens: int = 1) -> Measured:
    """Once, after a small clip that is not measured."""
    if way.compressor is None:
        stock(model, processor, warm_up_clip(clip), 1)
        return stock(model, processor, clip, new_tokens)
    return ours(model, processor, clip, way.compressor, new_tokens)


@torch.no_grad()
def stock(model: Any, processor: Any, clip: Clip, new_tokens: int) -> Measured:
    """The processor and ``generate`` of transformers. The tower's part is from its call to its return."""
    phases, device = Phases(None, lambda: synchronize(model.device)), model.device
    with phases(PROCESSOR):
        made = processor_inputs(processor, clip, chat_text(processor, QUESTION), THEIRS)
        inputs = {
            name: value.to(device, model.dtype if name.startswith("pixel_") else value.dtype)
            for name, value in made.items()
        }
    clock, times = FirstToken(), list[float]()

    def note(*_: Any) -> None:
        synchronize(device)
        times.append(time.perf_counter())

    tower = core(model).visual
    hooks = [tower.register_forward_pre_hook(note), tower.register_forward_hook(note)]
    start = time.perf_counter()
    output = model.generate(**inputs, max_new_tokens=new_tokens, logits_processor=LogitsProcessorList([clock]))
    for hook in hooks:
        hook.remove()
    begin, end = times
    seen = (end - begin) * 1000
    new = output[0, inputs["input_ids"].shape[1] :]
    tokens = int((inputs["input_ids"] == model.config.video_token_id).sum())
    return Measured(
        {**phases.milliseconds, TOWER: seen, PREFILL: (clock.at - start) * 1000 - seen},
        processor.tokenizer.decode(new, skip_special_tokens=True).strip(),
        tokens,
        tokens,
        tokens,
        inputs["input_ids"].shape[1],
    )


def ours(model: Any, processor: Any, clip: Clip, compressor: Compressor, new_tokens: int) -> Measured:
    """What ``score ask`` does with frames that it has read."""
    answers = ask(model, processor, clip, QUESTION, compressor, max_new_tokens=new_tokens)
    tokens, answer = len(answers.video.tokens), answers.compressed
    encoded = tokens if answers.seen is None else len(answers.seen.encoded)
    return Measured(dict(answer.milliseconds), answer.text, tokens, encoded, answer.visual_tokens, answer.prompt_tokens)


def check_same_answer(model: Any, processor: Any, clip: Clip) -> None:
    """Raises RuntimeError where ``score ask``, told to keep everything, does not say what transformers says."""
    theirs = stock(model, processor, clip, 8)
    mine = ours(model, processor, clip, Compressor("uniform", 1.0), 8)
    if mine.text != theirs.text:
        raise RuntimeError(f"score ask says {mine.text!r} of all tokens, transformers {theirs.text!r}")
