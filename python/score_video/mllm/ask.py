"""Asks a model a question about a video, with and without compression, and says where the time went."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from score_video.before_tower import Gate, Seen
from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.mllm.adapter import find_adapter
from score_video.mllm.compress import CompressedInputs, EncodedInputs, encode_inputs, gate_of
from score_video.mllm.conversation import Clip, chat_text, frames_for, model_inputs
from score_video.packed import PackedVideos, Selection, Selector
from score_video.policy import SurprisePolicy
from score_video.progress import Phases, Progress, synchronize
from score_video.thumbnails import PATCH_WIDTH

WARM_UP_FRAMES, WARM_UP_SIDE = 2, 56
"""What is asked about, unmeasured, before a measurement: the corner of a few frames, this many pixels wide and high."""


@dataclass(frozen=True)
class Answer:
    """What a model said.

    Attributes:
        text: without special tokens.
        visual_tokens, prompt_tokens: how many tokens of the video the model saw, and of the whole prompt.
        new_tokens: how many tokens the answer has.
        milliseconds: time of each phase up to the first new token, in order; what several answers share is in each.
        rest: milliseconds from the first new token to the last.
    """

    text: str
    visual_tokens: int
    prompt_tokens: int
    new_tokens: int
    milliseconds: Mapping[str, float]
    rest: float

    @property
    def time_to_first_token(self) -> float:
        """Milliseconds."""
        return sum(self.milliseconds.values())

    @property
    def tokens_per_second(self) -> float | None:
        """Of the new tokens after the first; None where there are none."""
        return (self.new_tokens - 1) / self.rest * 1000 if self.new_tokens > 1 else None


@dataclass(frozen=True)
class Answers:
    """What a model said about one video.

    Attributes:
        compressed: the answer on the tokens that the selector keeps.
        full: the answer from all of them; None where it was not asked for.
        video: the tokens of the video, a batch of one.
        index: int64 [K], which of them are kept.
        seen: which of them the vision tower saw for the compressed answer; None: all.
    """

    compressed: Answer
    full: Answer | None
    video: PackedVideos
    index: Tensor
    seen: Seen | None = None


def check_policy(model: Any, decides: object, name: str) -> None:
    """Raises ValueError where a policy is for tokens or questions of another width than the model's; names both. What
    decides by another method, a rule, is for any."""
    if not isinstance(decides, SurprisePolicy):
        return
    width, config = model.config.get_text_config().hidden_size, decides.config
    if config.state == "residual" and config.token_width != width:
        of_pixels = config.token_width % PATCH_WIDTH == 0
        place = ": one that was trained with pixels stands before the tower" if of_pixels else ""
        raise ScoreError(
            f"{name}: the policy is for tokens of width {config.token_width}, the model's have {width}{place}"
        )
    if config.question_width not in (0, width):
        raise ScoreError(
            f"{name}: the policy is for questions of width {config.question_width}, the model's have {width}"
        )


def ask(
    model: Any,
    processor: Any,
    clip: Clip,
    question: str,
    selector: Selector,
    *,
    compare: bool = False,
    max_new_tokens: int = 64,
    before: Mapping[str, float] | None = None,
    progress: Progress | None = None,
) -> Answers:
    """Answers about a video. Greedily, so that the two answers of a comparison differ by what was seen alone.

    A small question is asked first, unmeasured (:func:`warm_up_clip`). The vision tower runs once, for both answers;
    where a compressor chooses before it, twice: the answer on all tokens is of a tower that has seen all.

    Args:
        model: supported, on the device of what selects.
        processor: the model's.
        clip: the video.
        question: the question about the video; not empty.
        selector: what decides which tokens the model sees: a compressor, or an object of your own.
        compare: whether it is to answer on all tokens too.
        max_new_tokens: the most tokens an answer may have, at least 1.
        before: milliseconds of phases that came before and belong to the time to the first token: decoding.
        progress: told how far things are.

    Raises:
        ValueError: an empty question, ``max_new_tokens`` below 1, no chat template, or what
            :func:`score_video.mllm.encode_inputs` refuses.
    """
    if not question.strip():
        raise ScoreError("question must not be empty")
    if max_new_tokens < 1:
        raise ScoreError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    text = chat_text(processor, question)
    everything = without_gate(selector)  # a warm-up clip may be too short for what chooses before the tower
    small = _Run(model, processor, everything, Phases(None))
    small.answer(small.encode(warm_up_clip(clip), text), 2)

    run = _Run(model, processor, selector, Phases(progress, lambda: synchronize(model.device)))
    run.phases.milliseconds.update(before or {})
    encoded = run.encode(clip, text)
    compressed, selected = run.answer(encoded, max_new_tokens)
    full = None
    if compare and encoded.visuals.seen is None:
        full = run.answer_in_full(encoded, max_new_tokens)
    elif compare:
        whole = _Run(model, processor, everything, Phases(progress, lambda: synchronize(model.device)))
        whole.phases.milliseconds.update(before or {})
        full = whole.answer_in_full(whole.encode(clip, text), max_new_tokens)
    return Answers(compressed, full, encoded.visuals.videos, selected.index, encoded.visuals.seen)


class _Run:
    """The phases of an answer, in order."""

    def __init__(self, model: Any, processor: Any, selector: Selector, phases: Phases) -> None:
        self.phases = phases
        self._model = model
        self._processor = processor
        self._selector = selector
        self._shared: dict[str, float] = {}

    @torch.no_grad()
    def encode(self, clip: Clip, text: str) -> EncodedInputs:
        encoded = see_clip(self._model, self._processor, clip, text, self.phases, gate_of(self._selector))
        assert encoded is not None  # the template puts the video into the prompt, or the processor has complained
        self._shared = dict(self.phases.milliseconds)
        return encoded

    @torch.no_grad()
    def answer(self, encoded: EncodedInputs, max_new_tokens: int) -> tuple[Answer, Selection]:
        with self.phases("compression"):
            selected = encoded.select(self._selector)
            inputs = encoded.compress(selected)
        shared = {**self._shared, "compression": self.phases.milliseconds["compression"]}
        return self._generate(inputs, max_new_tokens, shared, "answer"), selected

    @torch.no_grad()
    def answer_in_full(self, encoded: EncodedInputs, max_new_tokens: int) -> Answer:
        """All tokens selected: the stock model's answer. What rewriting the prompt takes is not counted."""
        tokens = encoded.visuals.videos.tokens
        everything = torch.arange(len(tokens), device=tokens.device)
        inputs = encoded.compress(Selection(everything, encoded.visuals.videos.lengths))
        return self._generate(inputs, max_new_tokens, self._shared, "answer on all")

    def _generate(
        self, inputs: CompressedInputs, max_new_tokens: int, shared: Mapping[str, float], name: str
    ) -> Answer:
        """name: what progress calls it."""
        clock = FirstToken()
        with self.phases(name):
            start = time.perf_counter()
            output = self._model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                num_beams=1,
                logits_processor=LogitsProcessorList([clock]),
            )
        prefill = (clock.at - start) * 1000
        new = output[0, inputs.prompt_length :]
        assert inputs.selected is not None
        return Answer(
            text=self._processor.tokenizer.decode(new, skip_special_tokens=True).strip(),
            visual_tokens=len(inputs.selected.index),
            prompt_tokens=inputs["attention_mask"].shape[1],
            new_tokens=len(new),
            milliseconds={**shared, "prefill": prefill},
            rest=self.phases.milliseconds[name] - prefill,
        )


def see_clip(
    model: Any, processor: Any, clip: Clip, text: str, phases: Phases, gate: Gate | None = None
) -> EncodedInputs | None:
    """A prompt with a clip after the processor and the vision side; None: the processor put no video into it.

    Args:
        text: the prompt, as :func:`score_video.mllm.conversation.chat_text` makes it.
        phases: measures "processor", with a gate "gate" (from pixels to what it lets through), and "vision tower".
        gate: chooses what of the clip the vision tower sees; None: all.

    Raises:
        ValueError: what the processor or :func:`score_video.mllm.encode_inputs` refuses.
    """
    with phases("processor"):
        inputs = model_inputs(model, processor, clip, text)
    clocked = None if gate is None else _ClockedGate(gate.selector, gate.halo, gate.name)
    start = time.perf_counter()
    with phases("vision tower"):
        layout = find_adapter(model).layout_of(len(clip.frames))
        encoded = encode_inputs(model, inputs, visual_layout=layout, gate=clocked)
        synchronize(model.device)
    if clocked is not None and clocked.chose_at:
        before = (clocked.chose_at[0] - start) * 1000
        tower = phases.milliseconds.pop("vision tower") - before
        phases.milliseconds |= {"gate": before, "vision tower": tower}
    return encoded


@dataclass(frozen=True)
class _ClockedGate(Gate):
    """Chooses as the gate it is made of; ``chose_at`` gets the time of each choice (``time.perf_counter``)."""

    chose_at: list[float] = field(default_factory=list)

    def choose(self, thumbnails: PackedVideos) -> Seen:
        seen = super().choose(thumbnails)
        synchronize(seen.encoded.device)
        self.chose_at.append(time.perf_counter())
        return seen


def without_gate(selector: Selector) -> Selector:
    """What a selector does after the tower alone; itself where it chooses nothing before it."""
    gated = isinstance(selector, Compressor) and selector.gate is not None
    return replace(selector, before_tower=None, halo=0) if gated else selector  # type: ignore[type-var]


def warm_up_clip(clip: Clip) -> Clip:
    """The corner of a clip's first frames: what goes through everything first, unmeasured, because what a device does
    once (loading kernels, reading weights from disk) would count towards whatever comes first."""
    corner = clip.frames[:WARM_UP_FRAMES, :WARM_UP_SIDE, :WARM_UP_SIDE]
    return Clip(corner, clip.seconds[:WARM_UP_FRAMES], clip.duration)


class FirstToken(LogitsProcessor):
    """Changes nothing; notes when the logits of the first new token are there."""

    def __init__(self) -> None:
        self.at = math.nan

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        del input_ids
        if math.isnan(self.at):
            synchronize(scores.device)
            self.at = time.perf_counter()
        return scores


def seen_frames(processor: Any, clip: Clip) -> npt.NDArray[np.uint8]:
    """The frames as the model gets to see them, uint8 [T, H, W, 3]: cropped or padded where its processor does that.

    Where the processor cuts frames into patches at once (the Qwen families), which it only scales before, the clip's.
    """
    output = processor.video_processor(
        [frames_for(processor, clip).float()],  # not every processor can scale bytes
        do_sample_frames=False,
        do_rescale=False,
        do_normalize=False,
        return_tensors="pt",
    )
    for value in output.values():
        if isinstance(value, Tensor) and value.ndim == 5 and value.shape[2] == 3:  # [1, T, 3, H, W]
            pixels: npt.NDArray[np.uint8] = value[0].permute(0, 2, 3, 1).round().clamp(0, 255).to(torch.uint8).numpy()
            return pixels
    frames: npt.NDArray[np.uint8] = clip.frames.numpy()
    return frames
