"""Qwen2-VL, and what has rotary positions in time, height and width as it has them (Qwen3.5, Cosmos 3...)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from score_video.errors import ScoreError
from score_video.mllm.families.general import General, call_with, core
from score_video.mllm.prompt import Prompt


class Qwen2VL(General):
    """Tokens of a video: [t, h / merge, w / merge] of its grid."""

    gaps = False

    def position_ids(self, model: Any, inputs: Mapping[str, Any], prompt: Prompt) -> Tensor:
        """int64 [3, B, S]: time, height, width."""
        return self.rotary_positions(model, inputs, prompt).to(prompt.input_ids.device)

    def check_types(self, inputs: Mapping[str, Any], prompt: Prompt, images: Tensor, videos: Tensor) -> None:
        if not torch.equal(token_types(inputs, prompt).long(), videos.long().mul_(2).add_(images)):
            raise ScoreError(
                "inputs['mm_token_type_ids'] must be as the processor makes them: 1 at placeholders of images, 2 of "
                "videos, 0 elsewhere"
            )

    def rotary_positions(self, model: Any, inputs: Mapping[str, Any], prompt: Prompt) -> Tensor:
        """int64 [3, B, S]: time, height, width."""
        known = {**inputs, "input_ids": prompt.input_ids, "attention_mask": prompt.attention_mask}
        grid, _ = call_with(core(model).get_rope_index, known)
        return grid  # type: ignore[no-any-return]

    def finish_positions(self, shorter: Prompt) -> Tensor:
        """int64 [4, B, S]: a row in front, for masks alone, which counts the shorter prompt.

        Without it the gaps of the others would look like packed sequences.
        """
        return torch.cat([shorter.text_positions()[None], super().finish_positions(shorter)])

    def before_use(self, model: Any, whole: Prompt, shorter: Prompt) -> Callable[[], None]:
        """Sets what the model adds to the numbers of tokens that follow its latest prompt, as after the whole prompts.

        It adds how far the latest frame stands behind the last token of the text: 0, unless a video is long.
        """
        deltas = whole.position_ids.amax((0, 2)) - shorter.position_ids[..., -1].amax(0)  # [B]
        if len(deltas) > 1 and bool((deltas == deltas[0]).all()):
            deltas = deltas[:1]  # holds for any number of answers, too
        return partial(setattr, core(model), "rope_deltas", deltas[:, None])


class Cosmos3Edge(Qwen2VL):
    """Its processor gives token types only if it is asked for them."""

    processor_options = MappingProxyType({"return_mm_token_type_ids": True})


def token_types(inputs: Mapping[str, Any], prompt: Prompt) -> Tensor:
    """[B, S]: 0 for text, 1 for images, 2 for videos. Raises ValueError where the inputs are without."""
    types = inputs.get("mm_token_type_ids")
    if types is None or types.shape != prompt.input_ids.shape:
        raise ScoreError(
            "inputs must have mm_token_type_ids, as the processor makes them: by them the model tells positions of "
            "images and videos from those of text"
        )
    return types  # type: ignore[no-any-return]
