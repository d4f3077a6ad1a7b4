"""The thinkers of Qwen2.5-Omni and Qwen3-Omni: positions as Qwen2-VL's, of audio too, which stays whole.

A thinker is the part that reads and answers in text. The talker reads the whole prompt again, and speaks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from score_video.mllm.families.general import call_with, core
from score_video.mllm.families.qwen2_vl import Qwen2VL
from score_video.mllm.prompt import Prompt


class Omni(Qwen2VL):
    """Positions go by the tokens themselves; audio's length and a video's seconds are among the inputs.

    With ``use_audio_in_video`` among the inputs, a video's tokens stand between those of its sound.
    """

    consumed = (*Qwen2VL.consumed, "video_second_per_grid", "use_audio_in_video")

    def check_types(self, inputs: Mapping[str, Any], prompt: Prompt, images: Tensor, videos: Tensor) -> None:
        pass

    def rotary_positions(self, model: Any, inputs: Mapping[str, Any], prompt: Prompt) -> Tensor:
        lengths = inputs.get("audio_feature_lengths")
        if (mask := inputs.get("feature_attention_mask")) is not None:
            lengths = mask.sum(-1)
        known = {"input_ids": prompt.input_ids, "attention_mask": prompt.attention_mask, "audio_seqlens": lengths}
        known |= {"second_per_grids": inputs.get("video_second_per_grid")}
        grid, _ = call_with(core(model).get_rope_index, {**inputs, **known})
        return grid  # type: ignore[no-any-return]
