"""ERNIE-4.5-VL: positions as Qwen2-VL's; experts of their own for text and for pictures."""

from __future__ import annotations

from score_video.mllm.families.qwen2_vl import Qwen2VL


class Ernie(Qwen2VL):
    """Two frames become one: tokens of a video are [t / 2, h / merge, w / merge].

    The model is told for each token which experts it has (``moe_mm_token_type_ids``).
    """

    flash_by_mask = True
    carried = ("moe_mm_token_type_ids",)
