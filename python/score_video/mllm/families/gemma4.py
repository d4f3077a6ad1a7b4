"""Gemma 4 and Gemma 4 unified: frames come one after the other, with the place of each of their patches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from score_video.mllm.families.general import General, Grid


class Gemma4(General):
    """Tokens of a video: [frames, rows / k, columns / k], k patches pooled in height and width.

    Each frame stands behind a time. The larger ones let the tokens of a frame see each other, by their token types.
    """

    consumed = (
        "pixel_values",
        "pixel_values_videos",
        "image_position_ids",
        "video_position_ids",
        "num_frames_per_video",
    )
    carried = ("mm_token_type_ids",)
    needed = ("video_position_ids", "num_frames_per_video")

    def grids(self, model: Any, inputs: Mapping[str, Any], counts: Sequence[int]) -> list[Grid]:
        del model
        places = inputs["video_position_ids"]  # [frames, patches, 2]: column and row, -1 at padding
        grids, first = [], 0
        for frames, count in zip(inputs["num_frames_per_video"].tolist(), counts, strict=True):
            columns, rows = (places[first].amax(0) + 1).tolist()
            pooled = math.isqrt(frames * rows * columns // count)
            grids.append((frames, rows // pooled, columns // pooled))
            first += frames
        return grids
