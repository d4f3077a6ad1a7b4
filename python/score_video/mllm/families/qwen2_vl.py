"""Qwen2-VL and Qwen2.5-VL: rotary positions in time, height and width; features go in as ``mm_encoder_outputs``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from score_video.errors import ScoreError
from score_video.mllm.adapter import (
    Adapter,
    Features,
    VisualLayout,
    Visuals,
    features_at,
    owner_of_videos,
)
from score_video.mllm.prompt import Prompt
from score_video.packed import PackedVideos


class Qwen2VL(Adapter):
    """Tokens of a video: [t, h / merge, w / merge] of its grid."""

    consumed = (
        "pixel_values",
        "pixel_values_videos",
        "image_grid_thw",
        "video_grid_thw",
        "second_per_grid_ts",
        "mm_token_type_ids",
    )
    gaps = False

    def encode(
        self, model: Any, inputs: Mapping[str, Any], prompt: Prompt, visual_layout: VisualLayout | None
    ) -> Visuals | None:
        if inputs.get("pixel_values_videos") is None:
            return None
        if (grids := inputs.get("video_grid_thw")) is None:
            raise ScoreError("inputs must have video_grid_thw beside pixel_values_videos, as the processor makes them")
        output = model.get_video_features(inputs["pixel_values_videos"], grids, return_dict=True)
        image_places, video_places = self.placeholders(model, inputs, prompt)
        features = _features(output, prompt, video_places, "video")
        merge = model.config.vision_config.spatial_merge_size
        videos = PackedVideos.from_grids(features.rows, [(t, h // merge, w // merge) for t, h, w in grids.tolist()])
        fixed = None
        if inputs.get("pixel_values") is not None:
            output = model.get_image_features(inputs["pixel_values"], inputs.get("image_grid_thw"), return_dict=True)
            fixed = _features(output, prompt, image_places, "image")
        return Visuals(videos, features, fixed, owner_of_videos(videos, features.placeholders))

    def placeholders(self, model: Any, inputs: Mapping[str, Any], prompt: Prompt) -> tuple[Tensor, Tensor]:
        """bool [B, S], of images and of videos."""
        del inputs
        return prompt.input_ids == model.config.image_token_id, prompt.input_ids == model.config.video_token_id

    def position_ids(self, model: Any, inputs: Mapping[str, Any], prompt: Prompt) -> Tensor:
        """int64 [4, B, S]: of the text, for masks; time, height, width."""
        types = token_types(inputs, prompt)
        image_places, video_places = self.placeholders(model, inputs, prompt)
        if (types != image_places + 2 * video_places).any():
            raise ScoreError(
                "inputs['mm_token_type_ids'] must be as the processor makes them: 1 at placeholders of images, 2 of "
                "videos, 0 elsewhere"
            )
        names = ("mm_token_type_ids", "image_grid_thw", "video_grid_thw", "second_per_grid_ts")
        needed = {name: inputs[name] for name in names if inputs.get(name) is not None}
        grid, _ = _core(model).get_rope_index(prompt.input_ids, attention_mask=prompt.attention_mask, **needed)
        return torch.cat([prompt.text_positions()[None], grid.to(prompt.input_ids.device)])

    def finish_positions(self, shorter: Prompt) -> Tensor:
        """Row 0 is only for masks: it counts the shorter prompt, or its gaps would look like packed sequences."""
        rows = Prompt(shorter.input_ids, shorter.attention_mask, shorter.position_ids[1:], None)
        return torch.cat([shorter.text_positions()[None], super().finish_positions(rows)])

    def before_use(self, model: Any, whole: Prompt, shorter: Prompt) -> Callable[[], None]:
        """Sets what the model adds to the numbers of tokens that follow its latest prompt, as after the whole prompts.

        It adds how far the latest frame stands behind the last token of the text: 0, unless a video is long.
        """
        deltas = whole.position_ids[1:].amax((0, 2)) - shorter.position_ids[1:, :, -1].amax(0)  # [B]
        if bool((deltas == deltas[0]).all()):
            deltas = deltas[:1]  # holds for any number of answers, too
        return partial(setattr, _core(model), "rope_deltas", deltas[:, None])

    def hand_over(self, model: Any, input_ids: Tensor, parts: Sequence[Features | None]) -> dict[str, Any]:
        outputs = {
            name: self._output(part)
            for name, part in zip(("video", "image"), parts, strict=True)
            if part is not None and len(part.rows)
        }
        return {"input_ids": input_ids, "mm_encoder_outputs": outputs}

    def _output(self, part: Features) -> BaseModelOutputWithPooling:
        return BaseModelOutputWithPooling(pooler_output=by_prompt(part.rows, part))  # type: ignore[arg-type]


def token_types(inputs: Mapping[str, Any], prompt: Prompt) -> Tensor:
    """[B, S]: 0 for text, 1 for images, 2 for videos. Raises ValueError where the inputs are without."""
    types = inputs.get("mm_token_type_ids")
    if types is None or types.shape != prompt.input_ids.shape:
        raise ScoreError(
            "inputs must have mm_token_type_ids, as the processor makes them: by them the model tells positions of "
            "images and videos from those of text"
        )
    return types  # type: ignore[no-any-return]


def by_prompt(rows: Tensor, part: Features) -> list[Tensor]:
    """Splits rows [F, D] among the prompts that have any: ``generate`` repeats them so for several answers."""
    counts = part.placeholders.sum(1).tolist()
    return list(rows.split([count for count in counts if count]))  # type: ignore[no-untyped-call]


def _features(output: Any, prompt: Prompt, placeholders: Tensor, kind: str) -> Features:
    """Qwen3-VL's output has ``deepstack_features``, for each layer a tensor per picture."""
    deepstack = tuple(torch.cat(list(layer)) for layer in getattr(output, "deepstack_features", None) or ())
    return features_at(prompt, placeholders, torch.cat(list(output.pooler_output)), kind, deepstack)


def _core(model: Any) -> Any:
    """The module that counts positions, whatever the model is wrapped in (peft)."""
    return next(module for module in model.modules() if hasattr(module, "get_rope_index"))
