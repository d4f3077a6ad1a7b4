"""GLM-4.1V, GLM-4.5V, GLM-4.6V, GLM-OCR, GLM-5-next: one placeholder for all pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from score_video.mllm.families.general import General
from score_video.mllm.families.qwen2_vl import Qwen2VL, token_types
from score_video.mllm.prompt import Prompt


class Glm4V(Qwen2VL):
    """Positions as Qwen2-VL's. A frame's tokens stand between timestamps, which stay in the prompt.

    Features go in as ``inputs_embeds``: with ``mm_encoder_outputs`` the stock model takes the places of images for
    those of videos too, and refuses prompts that have both.
    """

    hands_over = "inputs_embeds"

    def placeholders(self, model: Any, inputs: Mapping[str, Any], prompt: Prompt) -> tuple[Tensor, Tensor]:
        types = token_types(inputs, prompt)
        either = prompt.input_ids == model.config.image_token_id
        return either & (types == 1), either & (types == 2)


class Glm4VMoe(Glm4V):
    """Its layers hand time, height and width to the attention kernels, where the others hand the text's positions."""

    flash_by_mask = True


class Glm5Next(General):
    """Plain positions. Videos are told by the marks around them, which stay in the prompt.

    Features go in as ``inputs_embeds``: for several answers ``generate`` repeats ``mm_encoder_outputs`` by the
    placeholders of videos, which these are not.
    """

    hands_over = "inputs_embeds"

    def placeholders(self, model: Any, inputs: Mapping[str, Any], prompt: Prompt) -> tuple[Tensor, Tensor]:
        ids, config = prompt.input_ids, model.config
        begun, ended = ((ids == token).cumsum(1) for token in (config.video_start_token_id, config.video_end_token_id))
        pictures = ids == config.image_token_id
        return pictures & (begun <= ended), pictures & (begun > ended)
