"""LLaVA-OneVision, LLaVA-NeXT-Video, Video-LLaVA, Perception-LM: plain positions, square frames, ``inputs_embeds``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from score_video.before_tower import Gate, Seen
from score_video.mllm.adapter import (
    Adapter,
    Features,
    VisualLayout,
    Visuals,
    features_at,
    join,
    owner_of_videos,
)
from score_video.mllm.families.general import core
from score_video.mllm.partial_frames import frames_of
from score_video.mllm.prompt import Prompt
from score_video.packed import PackedVideos


class LlavaNextVideo(Adapter):
    """Tokens of a video: [frames, side, side], side from the vision tower's after pooling."""

    consumed: tuple[str, ...] = ("pixel_values", "pixel_values_videos", "image_sizes", "mm_token_type_ids")
    newlines = 0  # after each video
    classes = 0  # tokens in front of each frame that are no part of it

    def encode(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        prompt: Prompt,
        visual_layout: VisualLayout | None,
        gate: Gate | None = None,
    ) -> Visuals | None:
        if (pixels := inputs.get("pixel_values_videos")) is None:
            return None
        seen: Seen | None = None
        if gate is None:
            rows = self._video_features(model, pixels)
            rows = rows.reshape(len(pixels), -1, rows.shape[-1])  # [V, frames * (classes + side * side) + newlines, D]
        else:
            rows, seen = self._gated_features(model, pixels, gate)
        whole = features_at(prompt, prompt.input_ids == model.config.video_token_id, rows.flatten(0, 1), "video")
        frames = pixels.shape[1]
        length = (rows.shape[1] - self.newlines) // frames
        number = torch.arange(rows.shape[1], device=rows.device)
        separator = (number % length < self.classes) | (number >= length * frames)
        side = math.isqrt(length - self.classes)
        videos = PackedVideos.from_grids(rows[:, ~separator].flatten(0, 1), [(frames, side, side)] * len(pixels))
        features, *fixed = _split(whole, separator.repeat(len(pixels)))
        if inputs.get("pixel_values") is not None:
            images = torch.cat(list(self._image_features(model, inputs)))
            fixed.append(features_at(prompt, prompt.input_ids == model.config.image_token_id, images, "image"))
        return Visuals(videos, features, join(fixed), owner_of_videos(videos, features.placeholders), seen)

    def _gated_features(self, model: Any, pixels: Tensor, gate: Gate) -> tuple[Tensor, Seen]:
        """As :meth:`_video_features`, of the frames that a gate keeps; the others are filled in."""
        videos, frames = pixels.shape[:2]
        newlines: list[Tensor] = []

        def encode(index: Tensor) -> Tensor:
            rows = self._video_features(model, pixels.flatten(0, 1)[index].view(videos, -1, *pixels.shape[2:]))
            of_frames = rows.reshape(videos, -1, rows.shape[-1])
            length = of_frames.shape[1] - self.newlines
            newlines.append(of_frames[:, length:])
            return of_frames[:, :length].flatten(0, 1)

        found = frames_of(gate, pixels.flatten(0, 1), [frames] * videos, encode)
        return torch.cat([found.rows.view(videos, -1, found.rows.shape[1]), newlines[0]], 1), found.seen

    def _video_features(self, model: Any, pixels: Tensor) -> Tensor:
        """Of pixels [V, frames, 3, H, W]: in the order of videos and of time, [..., D]."""
        return torch.stack(list(model.get_video_features(pixels, return_dict=True).pooler_output))

    def _image_features(self, model: Any, inputs: Mapping[str, Any]) -> list[Tensor]:
        images: list[Tensor] = model.get_image_features(
            inputs["pixel_values"], inputs["image_sizes"], return_dict=True
        ).pooler_output
        return images


class LlavaOnevision(LlavaNextVideo):
    """A learned newline stands after each video and is always kept."""

    consumed = (*LlavaNextVideo.consumed, "batch_num_images")
    newlines = 1

    def _image_features(self, model: Any, inputs: Mapping[str, Any]) -> list[Tensor]:
        images: list[Tensor] = model.get_image_features(
            inputs["pixel_values"],
            inputs["image_sizes"],
            batch_num_images=inputs.get("batch_num_images"),
            return_dict=True,
        ).pooler_output
        return images


class VideoLlava(LlavaNextVideo):
    """In front of each frame stands the tower's class token, which is always kept."""

    classes = 1

    def _video_features(self, model: Any, pixels: Tensor) -> Tensor:
        rows: Tensor = core(model).get_video_features(pixels, return_dict=True).pooler_output
        return rows

    def _image_features(self, model: Any, inputs: Mapping[str, Any]) -> list[Tensor]:
        return list(core(model).get_image_features(inputs["pixel_values"], return_dict=True).pooler_output)


class PerceptionLM(LlavaNextVideo):
    """Frames go through the tower as images do."""

    def _video_features(self, model: Any, pixels: Tensor) -> Tensor:
        rows: Tensor = core(model, "get_image_features").get_image_features(pixels, return_dict=True).pooler_output
        return rows

    def _image_features(self, model: Any, inputs: Mapping[str, Any]) -> list[Tensor]:
        return list(self._video_features(model, inputs["pixel_values"]))


def _split(features: Features, which: Tensor) -> tuple[Features, Features]:
    """Those rows for which ``which``, bool [F], is False, and those for which it is True."""
    other = features.placeholders.clone()
    other[features.placeholders] = which
    return (
        Features(features.rows[~which], features.placeholders & ~other),
        Features(features.rows[which], other),
    )
