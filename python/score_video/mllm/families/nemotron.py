"""Nemotron-H Omni: Mamba and attention without positions; one placeholder for images and frames of videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from score_video.errors import ScoreError
from score_video.mllm.families.general import General, Grid, core
from score_video.mllm.prompt import Prompt


class NemotronOmni(General):
    """Tokens of a video: [tubelets, rows / 2, columns / 2] of patches; a tubelet is two frames. Audio stays whole."""

    consumed = ("pixel_values", "image_grid_hw", "pixel_values_videos")
    needed = ()

    def check(self, model: Any, inputs: Mapping[str, Any]) -> None:
        if inputs.get("pixel_values") is not None:
            raise ScoreError(
                "inputs must not have pixel_values beside pixel_values_videos: Nemotron-H Omni has one placeholder for "
                "both and takes one of them"
            )
        if (rate := core(model).video_pruning_rate) > 0:
            raise ScoreError(f"model must have video_pruning_rate 0, or it drops tokens of its own, got {rate}")

    def placeholders(self, model: Any, inputs: Mapping[str, Any], prompt: Prompt) -> tuple[Tensor, Tensor]:
        places = prompt.input_ids == core(model).image_token_id
        return places & False, places

    def grids(self, model: Any, inputs: Mapping[str, Any], counts: Sequence[int]) -> list[Grid]:
        side = core(model).vision_model.patch_size * round(1 / model.config.downsample_ratio)
        h, w = (size // side for size in inputs["pixel_values_videos"].shape[-2:])
        return [(count // (h * w), h, w) for count in counts]
