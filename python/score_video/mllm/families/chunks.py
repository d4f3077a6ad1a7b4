"""Kimi-K2.5 and MiniMax-M3-VL: processors cut a video into chunks, and the inputs do not say which belong together.

Chunks that follow each other in a prompt, of the same size and with only a time between them, are taken for one video;
``visual_layout`` says otherwise, ``("video", chunks)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from score_video.mllm.families.general import Counted, General
from score_video.mllm.prompt import Prompt


class Kimi(General):
    """A chunk's frames, four, are one after the tower: tokens of a video are [chunks, h / merge, w / merge]."""

    mixes_pictures = True


class MiniMax(Counted):
    """Tokens of a video: [t, h / merge, w / merge], t summed over its chunks.

    Its indexer looks up blocks of the cache by the positions of queries, which therefore have to be places in it.
    """

    mixes_pictures = True
    # by default its processor scales images alone, and takes no frames of other sizes than whole tokens
    processor_options = MappingProxyType({"videos_kwargs": {"do_resize": True}})

    def placeholders(self, model: Any, inputs: Mapping[str, Any], prompt: Prompt) -> tuple[Tensor, Tensor]:
        config = model.config
        return prompt.input_ids == config.image_token_index, prompt.input_ids == config.video_token_index
