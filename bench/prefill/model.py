"""A model of a geometry with random weights, and a prompt with a video for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText

from bench.prefill.geometry import TEXT_AFTER, TEXT_BEFORE, Geometry
from score_video.mllm.adapter import Features, Visuals, find_adapter
from score_video.mllm.compress import EncodedInputs
from score_video.mllm.prompt import Prompt, read_prompt
from score_video.packed import PackedVideos

_TEXT_ID = 10  # any that is no placeholder
_TIMESTAMP = 5  # Qwen3-VL writes "<12.3 seconds>" in front of every frame


def make_model(geometry: Geometry, device: torch.device) -> Any:
    """In bfloat16, made where it is used: no float32 copy, no transfer. Weights from torch's global generator."""
    with device:
        model = AutoModelForImageTextToText.from_config(
            geometry.config(), dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    return model.eval().requires_grad_(False)


@dataclass(frozen=True)
class Workload:
    """A prompt of one video with random features in place of what the vision tower would make.

    Attributes:
        model, geometry: whose prompt it is.
        shape: frames, rows, columns of the video's tokens.
        inputs: what a processor would have returned, without pixels.
        encoded: what :func:`score_video.mllm.encode_inputs` would make of them.
    """

    model: Any
    geometry: Geometry
    shape: tuple[int, int, int]
    inputs: dict[str, Tensor]
    encoded: EncodedInputs

    @property
    def frames(self) -> Tensor:
        """[T, N, D], the visual tokens as the baselines take them."""
        frames, rows, columns = self.shape
        return self.encoded.visuals.videos.tokens.view(frames, rows * columns, -1)

    def position_ids(self) -> Tensor:
        """Positions of the whole prompt, as the stock model makes them in front of the first layer."""
        return self.encoded.adapter.position_ids(self.model, self.inputs, self.encoded.prompt)

    def vision(self, frames_per_call: int) -> Vision:
        """The vision tower's work on this video."""
        return Vision(self.model, self.geometry, self.shape, frames_per_call)


def make_workload(model: Any, geometry: Geometry, shape: tuple[int, int, int], device: torch.device) -> Workload:
    """Features as of a video in which half of the places stand still but for small noise."""
    inputs = make_inputs(geometry, shape, device)
    adapter, prompt = find_adapter(model), read_prompt(inputs)
    prompt = replace(prompt, position_ids=adapter.position_ids(model, inputs, prompt))
    frames, rows, columns = shape
    still = torch.randn(rows * columns, geometry.width, dtype=torch.bfloat16, device=device)
    tokens = torch.randn(frames, rows * columns, geometry.width, dtype=torch.bfloat16, device=device)
    tokens[:, 1::2] *= 0.05
    tokens = (tokens + still).flatten(0, 1)
    visuals = _visuals(model, geometry, prompt, tokens, shape)
    return Workload(model, geometry, shape, inputs, EncodedInputs(model, adapter, prompt, visuals, {}))


def make_inputs(geometry: Geometry, shape: tuple[int, int, int], device: torch.device) -> dict[str, Tensor]:
    """What a processor returns for text, a video and text, without pixels."""
    frames, rows, columns = shape
    config: Any = geometry.config()
    frame = [config.video_token_id] * (rows * columns)
    if geometry.family == "llava_onevision":
        video = [*frame * frames, config.video_token_id]  # the last is the newline's
    else:
        start, end = config.vision_start_token_id, config.vision_end_token_id
        if geometry.family == "qwen3_vl":
            video = [*[_TEXT_ID] * _TIMESTAMP, start, *frame, end] * frames
        else:
            video = [start, *frame * frames, end]
    ids = torch.tensor([[*[_TEXT_ID] * TEXT_BEFORE, *video, *[_TEXT_ID] * TEXT_AFTER]], device=device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if geometry.family != "llava_onevision":
        merge = config.vision_config.spatial_merge_size
        inputs["mm_token_type_ids"] = 2 * (ids == config.video_token_id).long()
        inputs["video_grid_thw"] = torch.tensor([[frames, rows * merge, columns * merge]], device=device)
    return inputs


def _visuals(model: Any, geometry: Geometry, prompt: Prompt, tokens: Tensor, shape: tuple[int, int, int]) -> Visuals:
    places = prompt.input_ids == model.config.video_token_id
    fixed = None
    if geometry.family == "llava_onevision":
        newline = places.clone()
        newline[0, places[0].nonzero()[:-1]] = False
        fixed, places = Features(model.model.image_newline[None], newline), places & ~newline
    levels = len(geometry.vision.get("deepstack_visual_indexes", ()))
    features = Features(tokens, places, tuple(torch.randn_like(tokens) for _ in range(levels)))
    owner = torch.zeros(1, dtype=torch.int64, device=tokens.device)
    return Visuals(PackedVideos.from_grids(tokens, [shape]), features, fixed, owner)


class Vision:
    """Runs the tower on a video, some frames at a time: in all these families frames do not see each other."""

    def __init__(self, model: Any, geometry: Geometry, shape: tuple[int, int, int], frames_per_call: int) -> None:
        """Pixels are random, the same ones in every call."""
        self._model = model
        self._frames, rows, columns = shape
        self._per_call = frames_per_call
        vision = model.config.vision_config
        factory = {"dtype": torch.bfloat16, "device": model.device}
        if geometry.family == "llava_onevision":
            self._grid = None
            self._pixels = torch.randn(frames_per_call, 3, vision.image_size, vision.image_size, **factory)
        else:
            self._grid = (rows * vision.spatial_merge_size, columns * vision.spatial_merge_size)
            patch = 3 * vision.temporal_patch_size * vision.patch_size**2
            self._pixels = torch.randn(frames_per_call, self._grid[0] * self._grid[1], patch, **factory)

    def __call__(self) -> None:
        """All frames once; the features are not kept."""
        for begin in range(0, self._frames, self._per_call):
            self.features(min(self._per_call, self._frames - begin))

    def features(self, frames: int) -> Any:
        """The model's output for so many frames."""
        return self._model.get_video_features(**self.inputs(frames), return_dict=True)

    def inputs(self, frames: int) -> dict[str, Tensor]:
        """So many frames as a processor returns them."""
        pixels = self._pixels[:frames]
        if self._grid is None:
            return {"pixel_values_videos": pixels[None]}
        grid = torch.tensor([[frames, *self._grid]], device=pixels.device)
        return {"pixel_values_videos": pixels.flatten(0, 1), "video_grid_thw": grid}
