"""GLM-4.1V, GLM-4.5V (mixture of experts) and GLM-4.6V: positions as Qwen2-VL's, one placeholder for all pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from score_video.mllm.adapter import Adapter, Features
from score_video.mllm.families.qwen2_vl import Qwen2VL, token_types
from score_video.mllm.prompt import Prompt


class Glm4V(Qwen2VL):
    """A frame's tokens stand between timestamps, which stay in the prompt.

    Features go in as ``inputs_embeds``: with ``mm_encoder_outputs`` the stock model takes the places of images for
    those of videos too, and refuses prompts that have both.
    """

    def placeholders(self, model: Any, inputs: Mapping[str, Any], prompt: Prompt) -> tuple[Tensor, Tensor]:
        types = token_types(inputs, prompt)
        either = prompt.input_ids == model.config.image_token_id
        return either & (types == 1), either & (types == 2)

    def hand_over(self, model: Any, input_ids: Tensor, parts: Sequence[Features | None]) -> dict[str, Any]:
        return Adapter.hand_over(self, model, input_ids, parts)


class Glm4VMoe(Glm4V):
    """Its layers hand time, height and width to the attention kernels, where the others hand the text's positions."""

    flash_by_mask = True
