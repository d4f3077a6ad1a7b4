"""A video after a model's vision side, and its place in a prompt: what is made once and serves all its questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from score_video.before_tower import Gate, Seen
from score_video.errors import ScoreError
from score_video.mllm.adapter import Adapter, Features, Visuals, find_adapter
from score_video.mllm.compress import EncodedInputs, encode_inputs
from score_video.mllm.conversation import Clip, chat_ids, chat_text, model_inputs
from score_video.mllm.prompt import Prompt
from score_video.packed import PackedVideos, Selection

_ANY_QUESTION = "What is shown?"  # the entry is the same whatever is asked
_TYPES = ("mm_token_type_ids", "moe_mm_token_type_ids")
"""Outputs of processors with a value for each token, 0 for text."""


@dataclass(frozen=True)
class PromptAboutVideo:
    """A whole prompt with one video in it.

    Attributes:
        adapter: the one of the model's family.
        prompt: ids and the stock model's positions, [1, S].
        features, fixed: as in :class:`EncodedVideo`; their places bool [1, S].
        end_of_video: how many of the S tokens come before the text behind the video.
    """

    adapter: Adapter
    prompt: Prompt
    features: Features
    fixed: Features | None
    end_of_video: int


@dataclass(frozen=True)
class EncodedVideo:
    """All that prompts need of a video.

    Attributes:
        features: its tokens, the rows [L, D]; their places bool [1, S] in ``ids``.
        fixed: what goes in unabridged beside them (a separator), or None.
        tokens_per_frame, columns: N, and how many of them are a row of a frame.
        placeholder: int64 [R], what the tokenizer makes of the chat template's placeholder for a video.
        ids: int64 [S], what stands in its place.
        types: int64 [S] each, their ``mm_token_type_ids`` and the like, by name.
        others: the processor's outputs that are neither text nor pixels: grids, times.
        seen: which tokens the vision tower has seen; the others are filled in. None: all.
    """

    features: Features
    fixed: Features | None
    tokens_per_frame: int
    columns: int
    placeholder: Tensor
    ids: Tensor
    types: Mapping[str, Tensor]
    others: Mapping[str, Tensor]
    seen: Seen | None = None

    def packed(self) -> PackedVideos:
        """The video as a batch of one."""
        frames, rows = len(self.features.rows) // self.tokens_per_frame, self.tokens_per_frame // self.columns
        return PackedVideos.from_grids(self.features.rows, [(frames, rows, self.columns)])

    def in_prompt(self, model: Any, text_ids: Tensor, answer: Sequence[int] = ()) -> EncodedInputs:
        """:meth:`prompt`, as :func:`score_video.mllm.encode_inputs` would return it."""
        made = self.prompt(model, text_ids, answer)
        owner = torch.zeros(1, dtype=torch.int64, device=self.features.rows.device)
        visuals = Visuals(self.packed(), made.features, made.fixed, owner, self.seen)
        return EncodedInputs(model, made.adapter, made.prompt, visuals, {})

    def prompt(self, model: Any, text_ids: Tensor, answer: Sequence[int] = ()) -> PromptAboutVideo:
        """A prompt about the video.

        Args:
            text_ids: int64, of :func:`score_video.mllm.conversation.chat_ids`.
            answer: tokens that follow the prompt.

        Raises:
            ValueError: the text has not one placeholder, or the processor makes inputs that are not known here.
        """
        device = self.features.rows.device
        first = _find(text_ids.tolist(), self.placeholder.tolist())
        before, after = text_ids[:first], text_ids[first + len(self.placeholder) :]
        sizes = len(before), len(after) + len(answer)
        answer_ids = torch.tensor(answer, dtype=torch.int64, device="cpu")
        ids = torch.cat([before, self.ids.cpu(), after, answer_ids])[None].to(device)
        mask = torch.ones_like(ids)
        types = {name: _widened(values[None], sizes) for name, values in self.types.items()}
        inputs = {**self.others, **types}
        adapter = find_adapter(model)
        carried = {name: inputs[name] for name in adapter.carried if name in inputs}
        prompt = Prompt(ids, mask, mask.cumsum(1) - 1, None, carried)
        if unknown := sorted(set(inputs) - {*adapter.consumed, *adapter.carried}):
            raise ScoreError(f"processor makes inputs that cannot be put into batches here: {', '.join(unknown)}")
        return PromptAboutVideo(
            adapter,
            replace(prompt, position_ids=adapter.position_ids(model, inputs, prompt)),
            replace(self.features, placeholders=_widened(self.features.placeholders, sizes)),
            None if self.fixed is None else replace(self.fixed, placeholders=_widened(self.fixed.placeholders, sizes)),
            len(before) + len(self.ids),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Everything, by name, as :meth:`from_tensors` takes it."""
        tensors = {"placeholder": self.placeholder, "ids": self.ids}
        tensors["geometry"] = torch.tensor([self.tokens_per_frame, self.columns], device="cpu")
        tensors |= {f"types.{name}": values for name, values in self.types.items()}
        for name, part in (("features", self.features), ("fixed", self.fixed)):
            if part is not None:
                tensors |= {f"{name}.rows": part.rows, f"{name}.placeholders": part.placeholders}
                tensors |= {f"{name}.deepstack.{n}": layer for n, layer in enumerate(part.deepstack)}
        if self.seen is not None:
            tensors |= {"seen.kept": self.seen.kept.index, "seen.encoded": self.seen.encoded}
        return tensors | {f"others.{name}": value for name, value in self.others.items()}

    @staticmethod
    def from_tensors(tensors: Mapping[str, Tensor]) -> EncodedVideo:
        """Raises KeyError where something is missing."""

        def part(name: str) -> Features:
            count = sum(key.startswith(f"{name}.deepstack.") for key in tensors)
            deepstack = tuple(tensors[f"{name}.deepstack.{n}"] for n in range(count))
            return Features(tensors[f"{name}.rows"], tensors[f"{name}.placeholders"], deepstack)

        def named(prefix: str) -> dict[str, Tensor]:
            return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}

        seen: Seen | None = None
        if "seen.kept" in tensors:
            index = tensors["seen.kept"]
            keep = torch.tensor([len(index)], dtype=torch.int32, device=index.device)
            seen = Seen(Selection(index, keep), tensors["seen.encoded"])
        tokens_per_frame, columns = tensors["geometry"].tolist()
        return EncodedVideo(
            part("features"),
            part("fixed") if "fixed.rows" in tensors else None,
            tokens_per_frame,
            columns,
            tensors["placeholder"],
            tensors["ids"],
            named("types."),
            named("others."),
            seen,
        )


@dataclass(frozen=True)
class ClipInputs:
    """What a processor made of a clip and of some question.

    Attributes:
        inputs: the model's, by name.
        num_frames: the clip's.
    """

    inputs: Mapping[str, Any]
    num_frames: int


def clip_inputs(model: Any, processor: Any, clip: Clip) -> ClipInputs:
    """Runs the processor of a supported model."""
    return ClipInputs(model_inputs(model, processor, clip, chat_text(processor, _ANY_QUESTION)), len(clip.frames))


def encode_video(model: Any, processor: Any, clip: Clip, gate: Gate | None = None) -> EncodedVideo:
    """Runs the processor and the model's vision side; the latter as :func:`encode_clip`, which has the rest."""
    return encode_clip(model, processor, clip_inputs(model, processor, clip), gate)


@torch.no_grad()
def encode_clip(model: Any, processor: Any, made: ClipInputs, gate: Gate | None = None) -> EncodedVideo:
    """Runs the model's vision side.

    Args:
        model, processor: supported, as transformers loads them.
        made: what the processor made.
        gate: chooses what of the video the vision tower sees; None: all.

    Raises:
        ValueError: the model sees no video in what the processor made, or several.
    """
    inputs, layout = made.inputs, find_adapter(model).layout_of(made.num_frames)
    encoded = encode_inputs(model, inputs, visual_layout=layout, gate=gate)
    if encoded is None or encoded.visuals.videos.num_videos != 1:
        found = 0 if encoded is None else encoded.visuals.videos.num_videos
        raise ScoreError(f"processor must make one video of one, got {found}")
    features, fixed, videos = encoded.visuals.features, encoded.visuals.fixed, encoded.visuals.videos
    ids = inputs["input_ids"][0].cpu()
    unexpanded = chat_ids(processor, chat_text(processor, _ANY_QUESTION))
    visual = features.placeholders if fixed is None else features.placeholders | fixed.placeholders
    begin, end = _changed(unexpanded.tolist(), ids.tolist(), visual[0].nonzero()[:, 0].tolist())

    def cut(part: Features) -> Features:
        return replace(part, placeholders=part.placeholders[:, begin : len(ids) - end])

    text_like = {"input_ids", "attention_mask", *_TYPES}
    return EncodedVideo(
        cut(features),
        None if fixed is None else cut(fixed),
        int(videos.tokens_per_frame),
        int(videos.columns),
        unexpanded[begin : len(unexpanded) - end],
        ids[begin : len(ids) - end],
        {name: inputs[name][0, begin : len(ids) - end] for name in _TYPES if name in inputs},
        {name: value for name, value in inputs.items() if name not in text_like and not name.startswith("pixel_")},
        encoded.visuals.seen,
    )


def _changed(text: Sequence[int], prompt: Sequence[int], visual: Sequence[int]) -> tuple[int, int]:
    """How many tokens before and after the video are the same in the text and in the prompt made of it."""
    begin = 0
    while begin < min(len(text), visual[0]) and text[begin] == prompt[begin]:
        begin += 1
    end = 0
    while end < min(len(text) - begin, len(prompt) - 1 - visual[-1]) and text[-1 - end] == prompt[-1 - end]:
        end += 1
    if begin + end == len(text):
        raise ScoreError(
            "processor must put the video in the place of a placeholder, and the chat template writes none"
        )
    return begin, end


def _find(text: Sequence[int], placeholder: Sequence[int]) -> int:
    """Where the placeholder stands in the text."""
    size = len(placeholder)
    found = [start for start in range(len(text) - size + 1) if text[start : start + size] == placeholder]
    if len(found) != 1:
        raise ScoreError(
            f"prompt must have one placeholder for a video, got {len(found)}: a question must not have any of its own"
        )
    return found[0]


def _widened(values: Tensor, sizes: tuple[int, int]) -> Tensor:
    """[1, S] -> [1, before + S + after], 0 or False around it."""
    return torch.nn.functional.pad(values, sizes)
