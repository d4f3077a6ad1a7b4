"""Vision towers of packed patches (NaViT), run on a part of a video's tokens: stock modules, stock calls, no hooks.

From 5.18 on the towers of transformers take what they would compute from the grid as keyword arguments
(``transformers.vision_utils``). These are computed for the whole grid by its own functions, and cut to the patches that
are there. The towers are called without a grid: one that does not know a keyword then fails, where with a made-up grid
frames would silently attend to each other. What comes out is what the stock tower makes of these patches if all others
are masked out of its attention.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from score_video import thumbnails
from score_video.errors import ScoreError
from score_video.mllm.families.general import Grid, core
from score_video.mllm.pixels import VIDEOS, check_patches, float_pixels
from score_video.packed import PackedVideos


class TokenTower:
    """Qwen2-VL's, Qwen2.5-VL's, Qwen3-VL's and those made like them: a token is one group of merge x merge patches.

    Attributes:
        module: the name of the tower in the model.
        frames: how many frames of the grid are one of tokens.
    """

    module = "visual"
    frames = 1

    def merge(self, model: Any, inputs: Mapping[str, Any]) -> int:
        """How many patches, in height and in width, are one group."""
        del inputs
        return int(model.config.vision_config.spatial_merge_size)

    def grids(self, model: Any, inputs: Mapping[str, Any]) -> list[Grid]:
        """Frames, rows and columns of each video's tokens."""
        merge = self.merge(model, inputs)
        return [(t // self.frames, h // merge, w // merge) for t, h, w in inputs["video_grid_thw"].tolist()]

    def groups(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        """int64 [L, frames]: the groups of each token, in the order in which they come from the processor."""
        tokens = sum(t * h * w for t, h, w in self.grids(model, inputs))
        return torch.arange(tokens, device=inputs["video_grid_thw"].device)[:, None]

    def thumbnails(self, model: Any, inputs: Mapping[str, Any]) -> PackedVideos:
        """What a gate chooses from (:mod:`score_video.thumbnails`)."""
        check_patches(inputs)
        patches = _patches(self.groups(model, inputs), self.merge(model, inputs))
        pixels = inputs[VIDEOS]
        return thumbnails.of_tokens(
            pixels, model.config.vision_config.patch_size, patches.to(pixels.device), self.grids(model, inputs)
        )

    def features(self, model: Any, inputs: Mapping[str, Any], index: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Rows [K, D] of the tokens ``index``, int64 [K] ascending, and what goes to later layers, [K, D] for each."""
        merge = self.merge(model, inputs)
        grids, tower = inputs["video_grid_thw"], getattr(core(model), self.module)
        # [G] ascending, and where each token's are among them, [K, frames]
        groups, places = torch.unique(self.groups(model, inputs)[index], return_inverse=True)
        pixels = float_pixels(inputs, _patches(groups, merge)).to(tower.dtype)
        return self.call(model, tower, pixels, tower_arguments(tower, grids, merge, groups), places)

    def call(
        self, model: Any, tower: Any, pixels: Tensor, arguments: dict[str, Any], places: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Runs the tower.

        Args:
            tower: the module.
            pixels: those of the G groups that are there.
            arguments: what :func:`tower_arguments` returned; ``grid_thw`` in them is None.
            places: int64 [K, frames], the groups of each token among these.
        """
        del model, places
        output = tower(pixels, return_dict=True, **arguments)
        return output.pooler_output, tuple(getattr(output, "deepstack_features", None) or ())


class GlmTower(TokenTower):
    """GLM-4V's and those made like it: positions in its table go by the true grid of each frame, which it gets."""

    def features(self, model: Any, inputs: Mapping[str, Any], index: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        merge, grids = self.merge(model, inputs), inputs["video_grid_thw"]
        tower = getattr(core(model), self.module)
        arguments = tower_arguments(tower, grids, merge, index)
        frame, _ = _frame_of_group(grids, merge)
        sizes = pad(grids[:, 1:], (1, 0), value=1).repeat_interleave(grids[:, 0], 0)  # [frames, 3]
        arguments["grid_thw"] = sizes[torch.unique(frame[index])]
        pixels = float_pixels(inputs, _patches(index, merge)).to(tower.dtype)
        return self.call(model, tower, pixels, arguments, index[:, None])


class ErnieTower(TokenTower):
    """ERNIE-4.5-VL's: the tower sees frames by themselves, a resampler behind it joins those of a pair."""

    module = "vision_tower"
    frames = 2

    def groups(self, model: Any, inputs: Mapping[str, Any]) -> Tensor:
        """Raises ScoreError for an odd number of frames, with which the stock model fails too."""
        merge, first, parts = self.merge(model, inputs), 0, []
        for t, h, w in inputs["video_grid_thw"].tolist():
            if t % 2:
                raise ScoreError(f"inputs['video_grid_thw'] must have an even number of frames, got {t}")
            size = (h // merge) * (w // merge)
            frames = torch.arange(t * size).view(t // 2, 2, size) + first
            parts.append(frames.transpose(1, 2).flatten(0, 1))
            first += t * size
        return torch.cat(parts).to(inputs["video_grid_thw"].device)

    def call(
        self, model: Any, tower: Any, pixels: Tensor, arguments: dict[str, Any], places: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        hidden = tower(pixels, return_dict=True, **arguments).last_hidden_state
        merge = tower.spatial_merge_size
        # the resampler knows nothing of where groups are: all first frames, then all second ones, as two rows of tokens
        pairs = hidden.view(-1, merge**2, hidden.shape[-1])[places.T.flatten()]
        grid = torch.tensor([[2, merge, merge * len(places)]], device=places.device)
        return core(model).resampler_model(pairs.flatten(0, 1), grid), ()


class HyperClovaTower(TokenTower):
    """HyperCLOVA X Vision 2's: Qwen2.5-VL's, and a projector behind it."""

    module = "vision_model"

    def call(
        self, model: Any, tower: Any, pixels: Tensor, arguments: dict[str, Any], places: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        rows, deepstack = super().call(model, tower, pixels, arguments, places)
        return core(model).projector(rows), deepstack


class VideoLlama3Tower(TokenTower):
    """VideoLLaMA 3's: how many patches are merged is among the inputs, and they are after the tower."""

    module = "vision_model"

    def merge(self, model: Any, inputs: Mapping[str, Any]) -> int:
        sizes = sorted(set(inputs["video_merge_sizes"].tolist()))
        if len(sizes) != 1:
            raise ScoreError(
                f"inputs['video_merge_sizes'] must be the same for all videos of a batch with before_tower, got {sizes}"
            )
        return int(sizes[0])

    def call(
        self, model: Any, tower: Any, pixels: Tensor, arguments: dict[str, Any], places: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        hidden = tower.embeddings(pixels)
        rotary = tower.rotary_pos_emb(hidden, arguments["position_ids"])
        hidden = tower.encoder(hidden, cu_seqlens=arguments["cu_seqlens"], position_embeddings=rotary)[0]
        merge = round((len(pixels) / len(places)) ** 0.5)
        # merging looks at one group at a time: one row of them
        grid = torch.tensor([[1, merge, merge * len(places)]], device=places.device)
        hidden = tower.pixel_unshuffle(tower.post_layernorm(hidden), grid, torch.tensor([merge], device=places.device))
        return core(model).projector(hidden), ()


def tower_arguments(tower: Any, grids: Tensor, merge: int, groups: Tensor) -> dict[str, Any]:
    """What the stock tower would compute from the grid, for a part of its patches.

    Args:
        tower: the module; what it needs is told by its attributes.
        grids: int64 [V, 3], frames, rows and columns of patches of each video.
        merge: patches in height and in width of a group.
        groups: int64 [G] ascending, those that are there.

    Returns:
        keyword arguments, ``grid_thw`` None among them.
    """
    from transformers import vision_utils  # loads torchvision where there is one

    rows = _patches(groups, merge)
    frame, frames = _frame_of_group(grids, merge)
    arguments: dict[str, Any] = {
        "grid_thw": None,
        "position_ids": vision_utils.get_vision_position_ids(grids, merge)[rows],
        "cu_seqlens": _segments(torch.bincount(frame[groups], minlength=frames), merge),
    }
    if hasattr(tower, "window_size"):  # Qwen2.5-VL
        order, ends = vision_utils.get_vision_window_index(grids, merge, tower.window_size, tower.patch_size)
        lengths = ends.to(groups.device).diff() // merge**2
        number = torch.full((len(frame),), -1, device=groups.device)
        number[groups] = torch.arange(len(groups), device=groups.device)
        number = number[order.to(groups.device)]  # of each group, window by window; -1: it is not there
        window = torch.arange(len(lengths), device=groups.device).repeat_interleave(lengths)
        arguments["window_index"] = number[number >= 0]
        arguments["cu_window_seqlens"] = _segments(torch.bincount(window[number >= 0], minlength=len(lengths)), merge)
    if hasattr(tower, "num_grid_per_side"):  # Qwen3-VL
        indices, weights = vision_utils.get_vision_interpolation_indices_and_weights(
            grids,
            tower.num_grid_per_side,
            mode=tower.interpolation_mode,
            align_corners=tower.interpolation_align_corners,
            spatial_merge_size=merge,
        )
        arguments |= {"interp_indices": indices[rows], "interp_weights": weights[rows]}
    return arguments


def _patches(groups: Tensor, merge: int) -> Tensor:
    """int64 [G] or [L, P] groups -> [G * merge^2] or [L, P * merge^2] patches: one after the other in each group."""
    patches = groups[..., None] * merge**2 + torch.arange(merge**2, device=groups.device)
    return patches.flatten() if groups.ndim == 1 else patches.flatten(1)


def _frame_of_group(grids: Tensor, merge: int) -> tuple[Tensor, int]:
    """int64 [groups], counted through all videos; and how many frames there are."""
    per_frame = (grids[:, 1] * grids[:, 2] // merge**2).repeat_interleave(grids[:, 0])
    return torch.arange(len(per_frame), device=grids.device).repeat_interleave(per_frame), len(per_frame)


def _segments(counts: Tensor, merge: int) -> Tensor:
    """Groups in each segment -> int32 [segments + 1] ends in patches, without the segments that are empty."""
    return pad((counts[counts > 0] * merge**2).cumsum(0), (1, 0)).int()
