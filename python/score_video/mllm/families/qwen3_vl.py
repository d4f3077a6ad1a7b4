"""Qwen3-VL, dense and mixture of experts: as Qwen2.5-VL, with features for the first layers too (DeepStack)."""

from __future__ import annotations

from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from score_video.mllm.adapter import Features
from score_video.mllm.families.qwen2_vl import Qwen2VL, by_prompt


class Qwen3VL(Qwen2VL):
    """A frame's tokens stand between timestamps, which stay in the prompt."""

    def _output(self, part: Features) -> BaseModelOutputWithDeepstackFeatures:
        deepstack = [by_prompt(layer, part) for layer in part.deepstack]
        return BaseModelOutputWithDeepstackFeatures(
            pooler_output=by_prompt(part.rows, part),  # type: ignore[arg-type]
            deepstack_features=deepstack,  # type: ignore[arg-type]
        )
