"""Molmo2: features are added to the embeddings of placeholders, whose tokens see each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from score_video.errors import ScoreError
from score_video.mllm.families.general import General, Grid


class Molmo2(General):
    """Tokens of a video: its ``video_grids``, [frames, rows, columns] after pooling. Marks and times stay."""

    consumed = (
        "pixel_values",
        "image_token_pooling",
        "image_grids",
        "image_num_crops",
        "pixel_values_videos",
        "video_token_pooling",
        "video_grids",
    )
    carried = ("mm_token_type_ids",)
    needed = ("video_grids",)

    def check(self, model: Any, inputs: Mapping[str, Any]) -> None:
        super().check(model, inputs)
        if inputs.get("pixel_values") is not None:
            raise ScoreError("inputs must not have pixel_values beside pixel_values_videos: Molmo2 takes one of them")

    def grids(self, model: Any, inputs: Mapping[str, Any], counts: Sequence[int]) -> list[Grid]:
        del model, counts
        return [(t, h, w) for t, h, w in inputs["video_grids"].tolist()]
