"""HunYuan V4-VL: positions as Qwen2-VL's, and a learned newline at the end of each row of a frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from score_video.mllm.families.general import Grid
from score_video.mllm.families.qwen2_vl import Qwen2VL


class HunYuan(Qwen2VL):
    """Tokens of a video: [t, h / merge, w / merge + 1]; newlines are a column and can be dropped like the rest."""

    def grids(self, model: Any, inputs: Mapping[str, Any], counts: Sequence[int]) -> list[Grid]:
        del counts
        merge = self.merge(model)
        return [(t, h // merge, w // merge + 1) for t, h, w in inputs["video_grid_thw"].tolist()]
