"""A vision model of transformers (DINOv2, SigLIP, CLIP, ViT...) as what makes tokens of frames, without an LLM.

Frames are scaled to the square that the model was made for, whatever their shape, as SigLIP's own processor does; those
of others crop instead, and what they would cut off is kept here (our reading).
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from score_video.errors import ScoreError
from score_video.packed import PackedVideos

FRAMES_AT_A_TIME = 8
MOST_SPECIAL = 32
"""Tokens before those of patches: a class token, registers."""

_LOADING_ERRORS = (AttributeError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError)
_POOLED = ("pooler", "head", "classifier", "logit_scale", "logit_bias", "projection")
"""Parts of names of weights that tokens do not depend on; checkpoints of other tasks lack them."""


@dataclass(frozen=True)
class VisionTower:
    """A vision model, frozen, in eval mode.

    Attributes:
        name: the folder or id that it came from.
        model: takes ``pixel_values`` [T, 3, height, width], returns ``last_hidden_state``.
        height, width: size of the frames that it is given, in pixels.
        patch: side of its patches, in pixels.
        mean, std: what pixels in [0, 1] are normalised by, one number for each colour.
    """

    name: str
    model: Any
    height: int
    width: int
    patch: int
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    std: tuple[float, ...] = (0.5, 0.5, 0.5)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        device: torch.device = next(self.model.parameters()).device
        return device

    @torch.inference_mode()
    def encode(self, frames: npt.NDArray[np.uint8]) -> PackedVideos:
        """The tokens of one video, frame by frame; class tokens and registers are left out.

        Args:
            frames: uint8 [T, H, W, 3], RGB, T at least 1, of any size.

        Returns:
            a batch of one, T frames of rows x columns tokens of the model's width, on its device.

        Raises:
            ScoreError: the model's output is no grid of patches.
        """
        parts: list[Tensor] = []
        grid = (0, 0)
        for first in range(0, len(frames), FRAMES_AT_A_TIME):
            hidden = self._hidden(frames[first : first + FRAMES_AT_A_TIME])
            tokens, grid = self._patches(hidden)
            parts.append(tokens)
        return PackedVideos.from_frames([torch.cat(parts).view(len(frames), *grid, -1)])

    def pixels(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """What the model takes of uint8 frames [T, H, W, 3] of any size: [T, 3, height, width], scaled and normalised,
        in its dtype and on its device."""
        parameter = next(self.model.parameters())
        pixels = torch.from_numpy(np.ascontiguousarray(frames)).to(parameter.device).permute(0, 3, 1, 2).float() / 255
        size = (self.height, self.width)
        if pixels.shape[2:] != size:
            pixels = torch.nn.functional.interpolate(pixels, size, mode="bicubic", antialias=True).clamp_(0, 1)
        mean, std = (pixels.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return ((pixels - mean) / std).to(parameter.dtype)

    def _hidden(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        options = {"interpolate_pos_encoding": True} if _interpolates(self.model) else {}
        output = self.model(pixel_values=self.pixels(frames), **options)
        hidden = getattr(output, "last_hidden_state", None)
        if not isinstance(hidden, Tensor):
            raise ScoreError(f"tower must return last_hidden_state, {self.name} does not")
        return hidden

    def _patches(self, hidden: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """[T, S, D] or [T, D, rows, columns] -> tokens [T, rows * columns, D], and (rows, columns)."""
        if hidden.ndim == 4:  # convolutional
            return hidden.flatten(2).transpose(1, 2), (hidden.shape[2], hidden.shape[3])
        stride = self.patch
        while stride <= min(self.height, self.width):  # towers like Swin merge patches, two by two
            rows, columns = self.height // stride, self.width // stride
            special = hidden.shape[1] - rows * columns
            if 0 <= special <= MOST_SPECIAL:
                return hidden[:, special:], (rows, columns)
            stride *= 2
        raise ScoreError(
            f"tower must make a token of each patch: {self.name} makes {hidden.shape[1]} of {self.width}x{self.height} "
            f"pixels and patches of {self.patch}"
        )


def load_tower(source: str, device: torch.device | None = None) -> VisionTower:
    """A vision model, or the vision side of a model of images and text. Only safetensors are read, and no code of the
    repository is run.

    Args:
        source: a folder, or the id of a repository on the hub, "owner/name".
        device: where it is to run; None: an accelerator if there is one, or else the CPU.

    Raises:
        ScoreError, OSError: it is not there, takes no images, or weights are missing; in one line.
    """
    from transformers import AutoModel

    if not Path(source).is_dir() and (Path(source).exists() or source.count("/") != 1):
        raise FileNotFoundError(2, "is neither a folder nor the id of a repository on the hub", source)
    device = device or torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        model, report = AutoModel.from_pretrained(
            source, dtype="auto", use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
    except _LOADING_ERRORS as error:
        raise ScoreError(f"{source}: cannot be loaded as a vision tower: {' '.join(str(error).split())}") from None
    whole = model
    for name in ("vision_model", "vision_tower", "visual"):
        if isinstance(part := getattr(model, name, None), torch.nn.Module):
            model = part
            break
    prefix = next((f"{name}." for name, part in whole.named_children() if part is model), "")
    missing = [key for key in sorted(report["missing_keys"]) if key.startswith(prefix)]
    if missing := [key for key in missing if not any(part in key for part in _POOLED)]:
        raise ScoreError(f"{source} lacks {len(missing)} of its weights, {missing[0]} among them")
    if getattr(model, "main_input_name", None) != "pixel_values":
        raise ScoreError(f"tower must be a vision model of transformers, got {type(whole).__name__} of {source}")
    if type(model.config).__name__ in ("Qwen2VLVisionConfig", "Qwen2_5_VLVisionConfig"):
        raise ScoreError(f"tower must take plain images, {source} takes patches: use it as a model (--model)")
    patch = _side(getattr(model.config, "patch_size", None))
    settings = _processor_settings(source)
    height, width = _frame_size(settings, model.config)
    if patch is None or patch < 1 or min(height, width) < patch:
        raise ScoreError(f"tower must have patch_size and image_size in its config, {source} has no usable ones")
    mean, std = (_three(settings.get(name)) for name in ("image_mean", "image_std"))
    model = model.to(device).eval().requires_grad_(False)
    return VisionTower(source, model, height // patch * patch, width // patch * patch, patch, mean, std)


def _interpolates(model: Any) -> bool:
    return "interpolate_pos_encoding" in inspect.signature(model.forward).parameters


def _side(value: Any) -> int | None:
    """Of a size in a config: one number, or two that are equal."""
    if isinstance(value, (list, tuple)) and value:
        value = value[-1]
    return value if isinstance(value, int) else None


def _three(value: Any) -> tuple[float, ...]:
    if isinstance(value, (list, tuple)) and len(value) == 3:
        return tuple(float(part) for part in value)
    return (0.5, 0.5, 0.5)


def _frame_size(settings: dict[str, Any], config: Any) -> tuple[int, int]:
    """(height, width) in pixels: what the processor makes, or else what the config says."""
    crops = settings.get("do_center_crop", "crop_size" in settings)
    size = settings.get("crop_size" if crops and settings.get("crop_size") else "size")
    if isinstance(size, dict) and "height" in size and "width" in size:
        return int(size["height"]), int(size["width"])
    if isinstance(size, dict) and "shortest_edge" in size:
        size = size["shortest_edge"]
    side = _side(size) or _side(getattr(config, "image_size", None)) or 0
    return side, side


def _processor_settings(source: str) -> dict[str, Any]:
    """``preprocessor_config.json``, empty where there is none: the processor itself would need torchvision."""
    from transformers.utils.hub import cached_file

    try:
        path = cached_file(source, "preprocessor_config.json", _raise_exceptions_for_missing_entries=False)
        settings = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}
