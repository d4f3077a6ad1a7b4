"""What a model family has to say so that its prompts can be compressed.

To add one: name it in ``registry.py``, and write a file like its neighbours with a subclass of :class:`Adapter` if none
of theirs will do (docs/adding-a-model.md).
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from types import MappingProxyType
from typing import Any, Literal

import torch
from packaging.version import Version
from torch import Tensor

from score_video.before_tower import Gate, Seen
from score_video.errors import ScoreError
from score_video.mllm.prompt import Prompt
from score_video.mllm.registry import FAMILIES, refusal
from score_video.packed import PackedVideos

version = functools.cache(metadata.version)  # reading it takes as long as all else that is done with a prompt
VisualLayout = Sequence[Sequence[tuple[Literal["image", "video"], int]]]
"""What a batch of prompts shows, in order, and how many runs of placeholders each takes: a video one for each frame."""


@dataclass(frozen=True)
class Features:
    """Rows that take the places of placeholders in a batch of prompts.

    Attributes:
        rows: [F, D].
        placeholders: bool [B, S], F of them True: where the rows go, prompt by prompt from left to right.
        deepstack: what goes to later layers at the same places, [F, D] for each (Qwen3-VL).
    """

    rows: Tensor
    placeholders: Tensor
    deepstack: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Visuals:
    """What a model's vision side made of the pictures in a batch of prompts.

    Attributes:
        videos: every video of the batch in the order of the prompts, packed; what is compressed.
        features: the same rows as they go into the prompts.
        fixed: what goes in unabridged: images, separators. None: nothing.
        owner: int64 [V], the prompt that each video belongs to.
        seen: which tokens the vision tower has seen, where something was chosen before it; the others are filled in.
            None: all.
    """

    videos: PackedVideos
    features: Features
    fixed: Features | None
    owner: Tensor
    seen: Seen | None = None


class Adapter(ABC):
    """A model family. It has no state: everything is read from the model it is given.

    Attributes:
        consumed: names of inputs that only the vision side reads; the compressed inputs are without them.
        gaps: whether positions of dropped tokens leave gaps that attention kernels could take for the borders of
            packed sequences (families with one row of positions).
        flash_by_mask: whether FlashAttention must be told a single prompt's length by a mask: the stock model shows its
            kernels several rows of positions, which they take for packed sequences.
        mixes_pictures: whether the processor's output does not tell which images, frames or chunks are one video, so
            that ``visual_layout`` may have to say it.
        carried: names of inputs with a value for each token, [B, S], that the model wants for the shorter prompts too.
        hands_over: the argument in which the model gets features.
        processor_options: what the family's processor has to be told for prompts that can be compressed.
    """

    consumed: tuple[str, ...]
    carried: tuple[str, ...] = ()
    hands_over: Literal["mm_encoder_outputs", "inputs_embeds"] = "inputs_embeds"
    processor_options: Mapping[str, Any] = MappingProxyType({})
    gaps: bool = True
    flash_by_mask: bool = False
    mixes_pictures: bool = False

    @abstractmethod
    def encode(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        prompt: Prompt,
        visual_layout: VisualLayout | None,
        gate: Gate | None = None,
    ) -> Visuals | None:
        """Runs the vision side. None: there is no video in the inputs. ``visual_layout``: only if ``mixes_pictures``.

        ``gate``: chooses what of the videos the tower sees; only where :mod:`score_video.mllm.gated` has the family.

        Raises ValueError where the inputs contradict each other, or hold what cannot be compressed exactly.
        """

    def layout_of(self, frames: int) -> VisualLayout | None:
        """``visual_layout`` of a prompt with one video of so many frames; None: it is read from the inputs."""
        del frames
        return None

    def position_ids(self, model: Any, inputs: Mapping[str, Any], prompt: Prompt) -> Tensor:
        """int64 [B, S] or [R, B, S]: the positions that the stock model gives to the whole prompts."""
        del model, inputs
        return prompt.position_ids

    def finish_positions(self, shorter: Prompt) -> Tensor:
        """The positions of the shorter prompts, which come with those that their tokens had in the whole ones.

        Rotary attention sees differences of positions alone. What comes after is counted by the stock model from how
        many tokens it has seen, so each prompt is moved to end where that count does, and may begin below 0.
        """
        return (shorter.position_ids - shift_to_count(shorter)[:, None]).mul_(shorter.attention_mask)

    def before_use(self, model: Any, whole: Prompt, shorter: Prompt) -> Callable[[], None] | None:
        """What is to be called before the model gets the shorter prompts; None: nothing.

        For models that remember something of their latest prompt. Positions in ``shorter`` are those in ``whole``.
        """
        del model, whole, shorter
        return None

    def hand_over(self, model: Any, input_ids: Tensor, parts: Sequence[Features | None]) -> dict[str, Any]:
        """Prompts and features as arguments of the model.

        Args:
            input_ids: int64 [B, S] of the shorter prompts.
            parts: the videos' features, the fixed ones.
        """
        embeds = model.get_input_embeddings()(input_ids)  # [B, S, D]
        for part in parts:
            if part is not None:
                rows = part.rows.to(embeds.device, embeds.dtype)
                embeds = embeds.masked_scatter(part.placeholders[..., None], rows)
        return {"inputs_embeds": embeds}


def shift_to_count(shorter: Prompt) -> Tensor:
    """int64 [B]: how far the last token of each prompt stands behind where its number in the prompt puts it."""
    last = shorter.position_ids[..., -1].reshape(-1, len(shorter.input_ids)).amax(0)
    return last + 1 - shorter.attention_mask.sum(1)


def features_at(
    prompt: Prompt, placeholders: Tensor, rows: Tensor, kind: str, deepstack: tuple[Tensor, ...] = ()
) -> Features:
    """Rows [F, D] for places of a prompt, bool [B, S].

    Raises ValueError, which names the ``kind`` of picture, where there are not F places or some are padding.
    """
    unmasked = placeholders & prompt.attention_mask.bool()
    count, read = torch.stack([placeholders.count_nonzero(), unmasked.count_nonzero()]).tolist()
    if count != len(rows):
        raise ScoreError(f"inputs['input_ids'] has {count} placeholders of {kind}s, their features are {len(rows)}")
    if read < count:
        raise ScoreError(f"inputs['attention_mask'] must be 1 at placeholders of {kind}s")
    return Features(rows, placeholders, deepstack)


def join(parts: Sequence[Features]) -> Features:
    """One for all: the rows of several in the order of their places, which differ."""
    order = torch.cat([part.placeholders.flatten().nonzero()[:, 0] for part in parts]).argsort()
    placeholders = torch.stack([part.placeholders for part in parts]).any(0)
    return Features(torch.cat([part.rows for part in parts])[order], placeholders)


def owner_of_videos(videos: PackedVideos, placeholders: Tensor) -> Tensor:
    """int64 [V]: the prompt of each video, from the places that wait for its tokens, bool [B, S].

    Raises ValueError where a prompt ends inside a video.
    """
    if len(placeholders) == 1:
        return torch.zeros(videos.num_videos, dtype=torch.int64, device=placeholders.device)
    ends = placeholders.sum(1).cumsum(0)  # [B]
    first, last = videos.cu_seqlens[:-1].long(), videos.cu_seqlens[1:].long() - 1
    owner = torch.searchsorted(ends, first, right=True)
    if (owner != torch.searchsorted(ends, last, right=True)).any():
        raise ScoreError("inputs['input_ids'] must have all placeholders of a video in one prompt")
    return owner


def find_adapter(model: Any) -> Adapter:
    """The adapter of a model's family. Raises TypeError: why it is refused, or which families there are."""
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if (reason := refusal(kind)) is not None:
        raise TypeError(f"model of type {kind!r} ({type(model).__name__}) cannot be compressed: {reason}")
    if kind not in FAMILIES:
        of_kind = f" of type {kind!r}" if kind is not None else ""
        raise TypeError(
            f"model must be one of {', '.join(supported_models())} (its config's model_type), "
            f"got {type(model).__name__}{of_kind}"
        )
    family = FAMILIES[kind]
    if family.since is not None and Version(installed := version("transformers")) < Version(family.since):
        raise TypeError(
            f"model of type {kind!r} ({type(model).__name__}) needs transformers {family.since} or later to be "
            f"compressed, got {installed}"
        )
    module, name = family.adapter.split(":")
    adapter: Adapter = getattr(import_module(f"score_video.mllm.families.{module}"), name)()
    return adapter


def supported_models() -> tuple[str, ...]:
    """The ``model_type`` of every supported configuration."""
    return tuple(sorted(FAMILIES))
