"""What nearly all video MLLMs of transformers share: ``get_video_features``, grids, and ``mm_encoder_outputs``.

Plain positions; families/qwen2_vl.py adds rotary positions in time, height and width.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor

from score_video.before_tower import Gate, Seen
from score_video.errors import ScoreError
from score_video.mllm.adapter import Adapter, Features, VisualLayout, Visuals, features_at, owner_of_videos
from score_video.mllm.first_pass import CompressedOutput, keep_mask
from score_video.mllm.prompt import Prompt
from score_video.packed import PackedVideos

Grid = tuple[int, int, int]
"""Frames, rows and columns of a video's tokens."""


class General(Adapter):
    """Tokens of a video: [t, h / merge, w / merge] of its grid, ``video_grid_thw``.

    The model is asked for the features of videos and images with those inputs that its methods name, and takes them
    as ``mm_encoder_outputs``. Placeholders are told by their token. What else is in the inputs, such as audio, goes to
    the model as it is.
    """

    hands_over: Literal["mm_encoder_outputs", "inputs_embeds"] = "mm_encoder_outputs"
    needed: tuple[str, ...] = ("video_grid_thw",)
    """What the processor makes beside ``pixel_values_videos``, and nothing goes without."""
    consumed: tuple[str, ...] = (
        "pixel_values",
        "pixel_values_videos",
        "image_grid_thw",
        "video_grid_thw",
        "second_per_grid_ts",
        "mm_token_type_ids",
    )

    def encode(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        prompt: Prompt,
        visual_layout: VisualLayout | None,
        gate: Gate | None = None,
    ) -> Visuals | None:
        if inputs.get("pixel_values_videos") is None:
            return None
        self.check(model, inputs)
        image_places, video_places = self.placeholders(model, inputs, prompt)
        seen: Seen | None = None
        if gate is None:
            output = self.features(core(model).get_video_features, inputs, "video")
            features = features_of(output, prompt, video_places, "video")
            counts = [len(piece) for piece in output.pooler_output]
        else:
            from score_video.mllm.gated import gated_features  # it builds on this module

            gated = gated_features(model, inputs, gate)
            features = features_at(prompt, video_places, gated.rows, "video", gated.deepstack)
            counts, seen = gated.counts, gated.seen
        grids = self.grids(model, inputs, counts)
        if visual_layout is not None or self.mixes_pictures:
            grids = join_chunks(grids, prompt, image_places, video_places, visual_layout)
        videos = PackedVideos.from_grids(features.rows, grids)
        fixed = None
        if inputs.get("pixel_values") is not None:
            output = self.features(core(model).get_image_features, inputs, "image")
            fixed = features_of(output, prompt, image_places, "image")
        self.check_types(inputs, prompt, image_places, video_places)
        return Visuals(videos, features, fixed, owner_of_videos(videos, features.placeholders), seen)

    def check(self, model: Any, inputs: Mapping[str, Any]) -> None:
        """Raises ValueError where the inputs are not as the family's processor makes them."""
        del model
        for name in self.needed:
            if inputs.get(name) is None:
                raise ScoreError(f"inputs must have {name} beside pixel_values_videos, as the processor makes them")

    def check_types(self, inputs: Mapping[str, Any], prompt: Prompt, images: Tensor, videos: Tensor) -> None:
        """Raises ValueError where the model reads token types that are not those of the placeholders, bool [B, S]."""

    def features(self, method: Any, inputs: Mapping[str, Any], kind: str) -> Any:
        """What the model's method for that kind of picture, "image" or "video", returns."""
        del kind
        return call_with(method, inputs, return_dict=True)

    def placeholders(self, model: Any, inputs: Mapping[str, Any], prompt: Prompt) -> tuple[Tensor, Tensor]:
        """bool [B, S], of images and of videos."""
        del inputs
        config = model.config
        return prompt.input_ids == config.image_token_id, prompt.input_ids == config.video_token_id

    def grids(self, model: Any, inputs: Mapping[str, Any], counts: Sequence[int]) -> list[Grid]:
        """Of each video's tokens, of which there are ``counts``. Frames that were merged are one.

        Raises ValueError where the tokens are no such grid.
        """
        merge = self.merge(model)
        grids = []
        for (_, h, w), count in zip(inputs["video_grid_thw"].tolist(), counts, strict=True):
            frame = (h // merge) * (w // merge)
            if count % frame:
                raise ScoreError(
                    f"inputs['video_grid_thw'] must have frames of a divisor of {count} tokens, the video's, got "
                    f"{h // merge} x {w // merge}"
                )
            grids.append((count // frame, h // merge, w // merge))
        return grids

    def merge(self, model: Any) -> int:
        """How many patches, in height and in width, are one token."""
        config = model.config.vision_config
        if (kernel := getattr(config, "merge_kernel_size", None)) is not None:
            return int(kernel[0])
        merge = getattr(config, "spatial_merge_size", None)
        return int(config.merge_size if merge is None else merge)

    def before_use(self, model: Any, whole: Prompt, shorter: Prompt) -> Callable[[], None] | None:
        """With ``inputs_embeds`` there is nothing to do: ``generate`` always has a cache then."""
        del whole, shorter
        needed = self.gaps and self.hands_over == "mm_encoder_outputs"
        return functools.partial(keep_mask, core(model)) if needed else None

    def hand_over(self, model: Any, input_ids: Tensor, parts: Sequence[Features | None]) -> dict[str, Any]:
        if self.hands_over == "inputs_embeds":
            return super().hand_over(model, input_ids, parts)
        outputs = {
            name: encoder_output(part)
            for name, part in zip(("video", "image"), parts, strict=True)
            if part is not None and len(part.rows)
        }
        return {"input_ids": input_ids, "mm_encoder_outputs": outputs}


class Counted(General):
    """For models that take a position for a place in the prompt, or count places themselves while they answer.

    What is kept is numbered anew, 0, 1, 2...
    """

    gaps = False

    def finish_positions(self, shorter: Prompt) -> Tensor:
        return shorter.text_positions()


class VideoLlama3(General):
    """VideoLLaMA 3: the merge size of each video is among the inputs."""

    consumed = (*General.consumed, "image_merge_sizes", "video_merge_sizes", "video_compression_mask")
    processor_options = MappingProxyType({"use_token_compression": False})

    def check(self, model: Any, inputs: Mapping[str, Any]) -> None:
        super().check(model, inputs)
        mask = inputs.get("video_compression_mask")
        if mask is not None and not bool(mask.all()):
            raise ScoreError(
                "inputs['video_compression_mask'] must be True everywhere, got False for "
                f"{int((~mask.bool()).sum())} of {mask.numel()} tokens: make the inputs with "
                "use_token_compression=False, or the processor drops tokens before they can be chosen from"
            )

    def grids(self, model: Any, inputs: Mapping[str, Any], counts: Sequence[int]) -> list[Grid]:
        del model, counts
        sizes = zip(inputs["video_grid_thw"].tolist(), inputs["video_merge_sizes"].tolist(), strict=True)
        return [(t, h // merge, w // merge) for (t, h, w), merge in sizes]


def core(model: Any, method: str = "get_video_features") -> Any:
    """The innermost module that has a method, whatever the model is wrapped in (a head, peft)."""
    found = model if hasattr(model, method) else None
    inside = model
    while inside is not None:  # level by level: a walk over all modules takes milliseconds
        inside = next((child for child in inside.children() if hasattr(child, method)), None)
        found = found if inside is None else inside
    return found or [module for module in model.modules() if hasattr(module, method)][-1]


def call_with(method: Any, inputs: Mapping[str, Any], **others: Any) -> Any:
    """Calls a model's method with those of the inputs that it names."""
    names = _parameters(getattr(method, "__func__", method))
    return method(**{name: inputs[name] for name in names if inputs.get(name) is not None}, **others)


@functools.lru_cache(maxsize=64)  # reading a signature takes longer than the call
def _parameters(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters)


def by_prompt(rows: Tensor, part: Features) -> list[Tensor]:
    """Splits rows [F, D] among the prompts that have any: ``generate`` repeats them so for several answers."""
    counts = part.placeholders.sum(1).tolist()
    return list(rows.split([count for count in counts if count]))  # type: ignore[no-untyped-call]


def features_of(output: Any, prompt: Prompt, placeholders: Tensor, kind: str) -> Features:
    """A model's output for its pictures, which may have ``deepstack_features``, for each layer a tensor per picture."""
    deepstack = tuple(_joined(layer) for layer in getattr(output, "deepstack_features", None) or ())
    return features_at(prompt, placeholders, _joined(output.pooler_output), kind, deepstack)


def _joined(parts: Iterable[Tensor]) -> Tensor:
    """Of one tensor no copy: it may be a hundred megabytes."""
    first, *others = parts
    return torch.cat([first, *others]) if others else first


def encoder_output(part: Features) -> Any:
    """Features as a model's own methods return them, an entry for each prompt that has any."""
    rows = by_prompt(part.rows, part)
    if not part.deepstack:
        return CompressedOutput(pooler_output=rows)  # type: ignore[arg-type]
    from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

    deepstack = [by_prompt(layer, part) for layer in part.deepstack]
    return BaseModelOutputWithDeepstackFeatures(pooler_output=rows, deepstack_features=deepstack)  # type: ignore[arg-type]


_GAP = 32
"""Tokens between two chunks of one video at most: marks and a time."""


def join_chunks(
    grids: Sequence[Grid], prompt: Prompt, images: Tensor, videos: Tensor, visual_layout: VisualLayout | None
) -> list[Grid]:
    """Makes one video of the chunks into which a processor has cut it, if the inputs do not say which belong together.

    Args:
        grids: frames, rows and columns of each chunk.
        images, videos: bool [B, S], the placeholders.
        visual_layout: which chunks are a video. None: those that follow each other with at most a few tokens between
            them, in frames of the same size.

    Raises ValueError where ``visual_layout`` does not add up.
    """
    ends = torch.tensor([t * h * w for t, h, w in grids]).cumsum(0)
    places = videos.nonzero().tolist()  # [F, 2]
    spans = [(*places[end - t * h * w], *places[end - 1]) for (t, h, w), end in zip(grids, ends.tolist(), strict=True)]
    if visual_layout is None:
        joins = [False] + [
            row == last_row
            and grid[1:] == before[1:]
            and begin - last <= _GAP
            and not bool(images[row, last:begin].any())
            for (row, begin, *_), (*_, last_row, last), grid, before in zip(
                spans[1:], spans, grids[1:], grids, strict=False
            )
        ]
    else:
        sizes = [count for parts in visual_layout for kind, count in parts if kind == "video"]
        if len(visual_layout) != len(prompt.input_ids) or sum(sizes) != len(grids) or min(sizes, default=0) < 1:
            raise ScoreError(
                f"visual_layout must have a list for each of {len(prompt.input_ids)} prompts, with {len(grids)} chunks "
                f"of videos in all, got {visual_layout!r}"
            )
        joins = [place > 0 for size in sizes for place in range(size)]
    joined: list[Grid] = []
    for joins_on, (t, h, w) in zip(joins, grids, strict=True):
        if joins_on:
            joined[-1] = (joined[-1][0] + t, h, w)
        else:
            joined.append((t, h, w))
    return joined
