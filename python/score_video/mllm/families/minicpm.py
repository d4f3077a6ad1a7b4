"""MiniCPM-V 4.6, 4.7 and MiniCPM-OCR: each frame is a run of placeholders; the inputs do not say of which video.

Frames that follow each other, of the same size and with only marks between them, are taken for one video;
``visual_layout`` says otherwise, ``("video", frames)``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from score_video.mllm.families.general import General, Grid
from score_video.mllm.families.qwen2_vl import Qwen2VL


class MiniCPM(General):
    """Tokens of a video: [frames, rows / merge, columns / merge] of the patches in ``target_sizes_videos``."""

    consumed = (
        "pixel_values",
        "pixel_values_videos",
        "target_sizes",
        "target_sizes_videos",
        "downsample_mode",
        "mm_token_type_ids",
    )
    needed = ("target_sizes_videos",)
    mixes_pictures = True
    # in slices a frame would be several pictures of several sizes
    processor_options = MappingProxyType({"videos_kwargs": {"slice_mode": False}})

    def features(self, method: Any, inputs: Mapping[str, Any], kind: str) -> Any:
        """The processor packs all patches into one row; ``generate`` may have repeated it."""
        pixels, sizes = (
            ("pixel_values_videos", "target_sizes_videos") if kind == "video" else ("pixel_values", "target_sizes")
        )
        return method(
            inputs[pixels][:1], inputs[sizes], downsample_mode=inputs.get("downsample_mode"), return_dict=True
        )

    def grids(self, model: Any, inputs: Mapping[str, Any], counts: Sequence[int]) -> list[Grid]:
        merge = 2 if (inputs.get("downsample_mode") or model.config.downsample_mode) == "4x" else 4
        return [(1, h // merge, w // merge) for h, w in inputs["target_sizes_videos"].tolist()]


class MiniCPM47(MiniCPM, Qwen2VL):
    """Rotary positions of three rows, as on one canvas."""
