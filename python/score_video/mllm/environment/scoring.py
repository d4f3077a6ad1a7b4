"""How probable a frozen MLLM finds given answers, from given tokens of a video: many prompts in few forward passes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import score_ext
from score_video.mllm.adapter import Adapter, Features
from score_video.mllm.compress import CompressedInputs, EncodedInputs, shorten_prompts
from score_video.mllm.prompt import Prompt


@dataclass(frozen=True)
class AnswerPrompt:
    """A whole prompt and the beginning of an answer, S tokens in all; on the CPU.

    Attributes:
        video: its number in the batch.
        prompt: [1, S].
        features, fixed: bool [S], the places of the video's tokens, and of what goes in unabridged.
        given: how many tokens of the answer there are.
    """

    video: int
    prompt: Prompt
    features: Tensor
    fixed: Tensor
    given: int


@dataclass(frozen=True)
class Kept:
    """Some of a video's tokens.

    Attributes:
        places: int64 [k], ascending, counted from the video's first; on the CPU.
        rows: int64 [k], where they are among :class:`VideoFeatures`.
    """

    places: Tensor
    rows: Tensor


@dataclass(frozen=True)
class ShortPrompt:
    """A prompt with some of its video's tokens."""

    whole: AnswerPrompt
    kept: Kept

    def __len__(self) -> int:
        return len(self.whole.features) - int(self.whole.features.sum()) + len(self.kept.places)

    def places(self) -> Tensor:
        """int64, ascending: the places of the whole prompt that stay."""
        stays = ~self.whole.features
        stays[self.whole.features.nonzero()[self.kept.places, 0]] = True
        return stays.nonzero()[:, 0]


@dataclass(frozen=True)
class VideoFeatures:
    """What the prompts' videos are made of, on the model's device.

    Attributes:
        rows: [R, D], tokens of all videos.
        deepstack: what goes to later layers, [R, D] each.
        fixed: for each video what goes in unabridged, [F, D] and [F, D] for each later layer; or None.
    """

    rows: Tensor
    deepstack: tuple[Tensor, ...]
    fixed: Sequence[Features | None]


def make_prompt(video: int, encoded: EncodedInputs, given: int) -> AnswerPrompt:
    """From one prompt of one video."""
    prompt, visuals = encoded.prompt, encoded.visuals
    features = visuals.features.placeholders[0].cpu()
    fixed = torch.zeros_like(features) if visuals.fixed is None else visuals.fixed.placeholders[0].cpu()
    ids, mask, positions = prompt.input_ids.cpu(), prompt.attention_mask.cpu(), prompt.position_ids.cpu()
    return AnswerPrompt(video, Prompt(ids, mask, positions, None), features, fixed, given)


def spans(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Which prompts to read together: numbers of them, of similar lengths, that fit when padded to the longest.

    One that is longer than ``max_tokens`` goes by itself. The longest come first.
    """
    groups: list[list[int]] = []
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        if not groups or lengths[groups[-1][0]] * (len(groups[-1]) + 1) > max_tokens:
            groups.append([])
        groups[-1].append(number)
    return groups


@torch.no_grad()
def log_probabilities(
    model: Any, adapter: Adapter, features: VideoFeatures, prompts: Sequence[ShortPrompt], max_tokens: int
) -> Iterator[tuple[int, Tensor]]:
    """What the model expects after each prompt, and after each token of the answer that is given.

    Args:
        max_tokens: how many all prompts of a forward pass may have, with padding.

    Yields:
        (number of the prompt, float32 [given + 1, vocabulary]), in another order than the prompts'.
    """
    for group in spans([len(prompt) for prompt in prompts], max_tokens):
        inputs = _join(model, adapter, features, [prompts[number] for number in group])
        last = 1 + max(prompts[number].whole.given for number in group)
        logits = model(**inputs, use_cache=False, logits_to_keep=last).logits  # [prompts, last, vocabulary]
        for number, row in zip(group, logits, strict=True):
            yield number, row[-1 - prompts[number].whole.given :].float().log_softmax(1)


def _join(model: Any, adapter: Adapter, features: VideoFeatures, prompts: Sequence[ShortPrompt]) -> CompressedInputs:
    """Several prompts as arguments for the model.

    They are cut to what is kept before they meet, so that no video's tokens are copied for each of its samples.
    """
    device = features.rows.device
    kept = [prompt.places() for prompt in prompts]
    width = max(len(places) for places in kept)

    def join(values: Sequence[Tensor], fill: int | bool) -> Tensor:
        """[..., S] of each prompt -> [..., prompts, width], padded on the left."""
        return torch.stack(
            [
                torch.nn.functional.pad(value[..., places], (width - len(places), 0), value=fill)
                for value, places in zip(values, kept, strict=True)
            ],
            dim=-2,
        ).to(device)

    wholes = [prompt.whole for prompt in prompts]
    joined = Prompt(
        join([whole.prompt.input_ids[0] for whole in wholes], 0),
        join([whole.prompt.attention_mask[0] for whole in wholes], 0),
        join([whole.prompt.position_ids[..., 0, :] for whole in wholes], 0),
        None,
    )
    rows = torch.cat([prompt.kept.rows for prompt in prompts]).to(device)
    videos = Features(
        score_ext.gather(features.rows, rows),
        join([whole.features for whole in wholes], False),
        tuple(score_ext.gather(layer, rows) for layer in features.deepstack),
    )
    fixed = _join_fixed([features.fixed[whole.video] for whole in wholes], join([w.fixed for w in wholes], False))
    everything = joined.attention_mask.bool()
    arguments, before_use = shorten_prompts(model, adapter, joined, everything, videos, fixed)
    return CompressedInputs(arguments, before_use=before_use)


def _join_fixed(parts: Sequence[Features | None], placeholders: Tensor) -> Features | None:
    there = [part for part in parts if part is not None]
    if not there:
        return None
    layers = zip(*(part.deepstack for part in there), strict=True)
    return Features(
        torch.cat([part.rows for part in there]), placeholders, tuple(torch.cat(list(layer)) for layer in layers)
    )
