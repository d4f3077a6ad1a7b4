"""Pixels of a video as bytes, until something is computed with them.

A video processor scales frames of bytes, makes floats of these, (byte - mean) / deviation, and cuts the floats into
patches. Cutting only moves pixels, so that bytes can be cut and normalised later: the same floats to the bit, a quarter
of the memory moved until then, and of what a choice before the vision tower leaves out none are made at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from score_video.errors import ScoreError
from score_video.packed import described

PROCESSORS = frozenset(
    {
        "CohereCompassVideoProcessor",
        "Ernie4_5_VLMoeVideoProcessor",
        "Glm46VVideoProcessor",
        "Glm4vVideoProcessor",
        "Glm5NextVideoProcessor",
        "Qwen2VLVideoProcessor",
        "Qwen3VLVideoProcessor",
    }
)
"""Video processors of transformers that do nothing with floats but cut them into patches, in each one colour after the
other. VideoLLaMA 3's compares frames after it has normalised them, Cosmos 3 Edge's puts colours last: they are none."""

VIDEOS = "pixel_values_videos"
NORMALISATION = "pixel_normalisation"
"""The name of float32 [2, 3] among inputs: mean and deviation of each colour, in units of bytes. Where it is, the
pixels of videos are uint8 [patches, values of a patch]."""

AS_BYTES = {"do_rescale": False, "do_normalize": False}
"""What a processor of :data:`PROCESSORS` is told so that it gives bytes."""

_DTYPES = (torch.uint8, torch.float32, torch.float16, torch.bfloat16)
_DECIDED = {*AS_BYTES, "rescale_factor", "image_mean", "image_std", "videos_kwargs"}
"""Options that say how a processor normalises."""


def normalisation_of(processor: Any, options: Mapping[str, Any]) -> Tensor | None:
    """What the bytes that a processor can give are to be normalised with, as :data:`NORMALISATION`.

    Args:
        processor: the model's, as transformers loads it.
        options: what the processor is told besides.

    Returns:
        None where it is no processor of :data:`PROCESSORS`, does not normalise, or ``options`` have a say in that.
    """
    videos: Any = getattr(processor, "video_processor", None)
    if type(videos).__name__ not in PROCESSORS or _DECIDED & set(options):
        return None
    if not (videos.do_rescale and videos.do_normalize):
        return None
    # in float32 and in this order, as the processor does it
    factor = 1.0 / videos.rescale_factor
    return torch.stack([torch.tensor(values) * factor for values in (videos.image_mean, videos.image_std)])


def float_pixels(inputs: Mapping[str, Any], rows: Tensor | None = None) -> Tensor:
    """The pixels of videos, [P, W], normalised if that is still to be done.

    Args:
        inputs: of one or more prompts, :data:`VIDEOS` among them.
        rows: int64 [P], which patches; None: all.
    """
    pixels: Tensor = inputs[VIDEOS] if rows is None else inputs[VIDEOS][rows]
    normalisation = inputs.get(NORMALISATION)
    if normalisation is None:
        return pixels
    mean, deviation = normalisation[..., None]  # [3, 1] each
    colours = pixels.view(len(pixels), 3, pixels.shape[1] // 3)
    return colours.to(torch.float32).sub_(mean).div_(deviation).view(pixels.shape)


def check_normalisation(inputs: Mapping[str, Any]) -> None:
    """Raises ScoreError where :data:`NORMALISATION` is not what it is to be, or beside pixels that are no bytes."""
    normalisation, pixels = inputs.get(NORMALISATION), inputs.get(VIDEOS)
    if normalisation is None:
        return
    floats = isinstance(normalisation, Tensor) and normalisation.is_floating_point()
    if not floats or normalisation.shape != (2, 3):
        raise ScoreError(f"inputs[{NORMALISATION!r}] must be float [2, 3], got {described(normalisation)}")
    if pixels is not None and (not isinstance(pixels, Tensor) or pixels.dtype != torch.uint8 or pixels.ndim != 2):
        raise ScoreError(
            f"inputs[{VIDEOS!r}] must be uint8 [patches, values of a patch] beside {NORMALISATION!r}, got "
            f"{described(pixels)}"
        )


def check_patches(inputs: Mapping[str, Any]) -> None:
    """Raises ScoreError where the pixels of videos are not as many patches as ``video_grid_thw`` has, or no pixels."""
    pixels, grids = inputs.get(VIDEOS), inputs.get("video_grid_thw")
    if not isinstance(grids, Tensor) or grids.ndim != 2 or grids.shape[1] != 3 or grids.is_floating_point():
        raise ScoreError(f"inputs['video_grid_thw'] must be integers [videos, 3], got {described(grids)}")
    count = int(grids.prod(1).sum())
    if not isinstance(pixels, Tensor) or pixels.ndim != 2 or pixels.dtype not in _DTYPES or len(pixels) != count:
        raise ScoreError(
            f"inputs[{VIDEOS!r}] must be uint8, float32, float16 or bfloat16 [{count}, values of a patch], as "
            f"video_grid_thw says, got {described(pixels)}"
        )


def with_floats(inputs: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    """Inputs as the processor itself would have made them; those without :data:`NORMALISATION` as they are.

    Args:
        dtype: that pixels get which were bytes.
    """
    floats = dict(inputs)
    if floats.get(NORMALISATION) is not None:
        floats[VIDEOS] = float_pixels(floats).to(dtype)
        del floats[NORMALISATION]
    return floats
