"""InternVL and SmolVLM: images and frames of videos come alike, in one ``pixel_values`` and behind one placeholder.

Which runs of placeholders are frames is read from the prompt where it can be, or told by the caller (``pictures``).
Positions are plain; features go in as ``inputs_embeds``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from score_video.mllm.adapter import (
    Adapter,
    Features,
    Pictures,
    Visuals,
    features_at,
    grid_videos,
    owner_of_videos,
)
from score_video.mllm.prompt import Prompt


class FrameByFrame(Adapter):
    """Tokens of a video: [frames, side, side]."""

    consumed = ("pixel_values", "pixel_attention_mask", "mm_token_type_ids")
    mixes_pictures = True

    @abstractmethod
    def rows(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, int]:
        """[F, D], of all pictures in the order of the prompts, and how many of them a frame has."""

    def encode(
        self, model: Any, inputs: Mapping[str, Any], prompt: Prompt, pictures: Pictures | None
    ) -> Visuals | None:
        if inputs.get("pixel_values") is None:
            return None
        rows, frame = self.rows(model, inputs)
        whole = features_at(prompt, prompt.input_ids == model.config.image_token_id, rows, "picture")
        runs = _runs(prompt, whole.placeholders)
        if pictures is None:
            pictures = [_guess(number, row, frame) for number, row in enumerate(runs)]
        sizes: list[int] = []  # of every video, in frames
        video_runs: list[bool] = []  # one for each run of the batch
        for number, (row, said) in enumerate(_zip(runs, pictures)):
            kinds = [kind for kind, count in said for _ in range(count)]
            if any(kind == "video" and length != frame for kind, (length, _) in zip(kinds, row, strict=True)):
                raise ValueError(
                    f"pictures[{number}] must call a video what has runs of {frame} placeholders, the tokens of a "
                    f"frame, got {said!r} for runs of {[length for length, _ in row]}"
                )
            video_runs += [kind == "video" for kind in kinds]
            sizes += [count for kind, count in said if kind == "video"]
        if not sizes:
            return None
        lengths = torch.tensor([length for row in runs for length, _ in row], device=rows.device)
        of_video = torch.tensor(video_runs, device=rows.device).repeat_interleave(lengths)  # [F]
        places = torch.zeros_like(whole.placeholders)
        places[whole.placeholders] = of_video
        side = math.isqrt(frame)
        videos = grid_videos(rows[of_video], [(frames, side, side) for frames in sizes])
        fixed = Features(rows[~of_video], whole.placeholders & ~places)
        return Visuals(videos, Features(videos.tokens, places), fixed, owner_of_videos(videos, places))


class InternVL(FrameByFrame):
    """An image is one run, however many tiles it is cut into; a frame is one tile."""

    def rows(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, int]:
        tiles: Tensor = model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output  # [P, n, D]
        return tiles.flatten(0, 1), tiles.shape[1]


class SmolVLM(FrameByFrame):
    """SmolVLM2. An image is a run for each of the tiles it is cut into, and one for the whole."""

    def rows(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, int]:
        mask = inputs.get("pixel_attention_mask")
        rows = model.get_image_features(inputs["pixel_values"], mask, return_dict=True).pooler_output
        vision = model.config.vision_config
        return torch.cat(list(rows)), (vision.image_size // vision.patch_size // model.config.scale_factor) ** 2


def _runs(prompt: Prompt, placeholders: Tensor) -> list[list[tuple[int, int]]]:
    """For each prompt, the length of each run of placeholders and the token in front of it (-1: none)."""
    before = torch.nn.functional.pad(placeholders, (1, 0))[:, :-1]
    after = torch.nn.functional.pad(placeholders, (0, 1))[:, 1:]
    previous = torch.nn.functional.pad(prompt.input_ids, (1, 0), value=-1)[:, :-1]
    begins = (placeholders & ~before).nonzero().tolist()
    ends = (placeholders & ~after).nonzero()[:, 1].tolist()
    tokens = previous[placeholders & ~before].tolist()
    runs: list[list[tuple[int, int]]] = [[] for _ in prompt.input_ids]
    for (row, begin), end, token in zip(begins, ends, tokens, strict=True):
        runs[row].append((end - begin + 1, token))
    return runs


def _guess(number: int, runs: list[tuple[int, int]], frame: int) -> list[tuple[Any, int]]:
    """A prompt's pictures where nobody says: the frames of one video, or images only."""
    lengths = [length for length, _ in runs]
    if all(length > frame for length in lengths):  # each cut into tiles; or there are none at all
        return [("image", 1) for _ in runs]
    if len(runs) > 1 and set(lengths) == {frame} and len({token for _, token in runs}) == 1:
        return [("video", len(runs))]
    raise ValueError(
        f"pictures must be given: prompt {number} has runs of {lengths} placeholders, which may be images as well as "
        "frames of videos. Say what they are in order, for every prompt of the batch, as "
        "[[('image', 1), ('video', 8)], ...]: one run for each frame"
    )


def _zip(runs: list[list[tuple[int, int]]], pictures: Pictures) -> list[tuple[list[tuple[int, int]], Any]]:
    """Each prompt's runs beside what is said of them. Raises ValueError where that is no description of them."""
    if len(pictures) != len(runs):
        raise ValueError(f"pictures must have a list for each of {len(runs)} prompts, got {len(pictures)}")
    for number, (row, said) in enumerate(zip(runs, pictures, strict=True)):
        for part in said:
            if len(part) != 2 or part[0] not in ("image", "video") or not isinstance(part[1], int) or part[1] < 1:
                raise ValueError(f"pictures[{number}] must hold ('image', runs) and ('video', frames), got {part!r}")
        if (total := sum(count for _, count in said)) != len(row):
            raise ValueError(f"pictures[{number}] is of {total} runs of placeholders, the prompt has {len(row)}")
    return list(zip(runs, pictures, strict=True))
