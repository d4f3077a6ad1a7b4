"""InternVL and SmolVLM: images and frames of videos come alike, in one ``pixel_values`` and behind one placeholder.

What a run of placeholders is can be read from the text that the processors write in front of each frame and of no
image, with the tokenizer that lies beside the model; or the caller says it (``visual_layout``). Positions are plain;
features go in as ``inputs_embeds``.
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from score_video.before_tower import Gate, Seen
from score_video.errors import ScoreError
from score_video.mllm.adapter import (
    Adapter,
    Features,
    VisualLayout,
    Visuals,
    features_at,
    owner_of_videos,
)
from score_video.mllm.partial_frames import frames_of
from score_video.mllm.prompt import Prompt
from score_video.packed import PackedVideos

_HEADING = 32
"""Tokens in front of a run in which a frame's heading is looked for; it is of about ten."""

_TELL = (
    "Say what they are in order, for every prompt of the batch, as [[('image', 1), ('video', 8)], ...]: one run for "
    "each frame"
)


@dataclass(frozen=True)
class _Run:
    """Placeholders that stand together in a prompt: where the first is, and how many there are."""

    begin: int
    length: int

    @property
    def end(self) -> int:
        return self.begin + self.length


class FrameByFrame(Adapter):
    """Tokens of a video: [frames, side, side].

    Attributes:
        marks: special tokens that stand between the text and a run of placeholders; behind a run there is one.
    """

    consumed = ("pixel_values", "pixel_attention_mask", "mm_token_type_ids")
    mixes_pictures = True
    marks: int

    @abstractmethod
    def rows(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, int]:
        """[F, D], of all pictures in the order of the prompts, and how many of them a frame has."""

    @abstractmethod
    def tokens_per_frame(self, model: Any) -> int:
        """How many tokens a frame has, as the model's configuration has it."""

    @abstractmethod
    def tiles(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """All pictures in the order of the prompts, [P, 3, H, W]; and what encodes some, int64 [K] -> [K * n, D]."""

    @abstractmethod
    def surely_images(self, ids: Sequence[int], runs: Sequence[_Run], frame: int) -> list[int]:
        """For each run, in a prompt's token ids: how many runs the image has that begins there; 0: it may be a frame.

        The other runs of an image have 0 too.
        """

    @abstractmethod
    def is_frame(self, text: str, before: int, alone: bool) -> bool:
        """Whether the text in front of a run is a frame's heading.

        Args:
            text: the prompt up to where the run's marks begin.
            before: frames of the video that the heading goes on; 0: it begins one.
            alone: whether ``text`` is all that there is between the frame before and this one.

        Raises ValueError where it is a heading that no processor writes.
        """

    def layout_of(self, frames: int) -> VisualLayout:
        return [[("video", frames)]]

    def encode(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        prompt: Prompt,
        visual_layout: VisualLayout | None,
        gate: Gate | None = None,
    ) -> Visuals | None:
        if inputs.get("pixel_values") is None:
            return None
        pictures = prompt.input_ids == model.config.image_token_id
        if gate is None:
            rows, frame = self.rows(model, inputs)
            features_at(prompt, pictures, rows, "picture")  # are there as many as places?
        else:
            frame = self.tokens_per_frame(model)
        runs = _runs(pictures)
        if visual_layout is None:
            visual_layout = self._read(model, prompt, runs, frame)
        sizes: list[int] = []  # of every video, in frames
        video_runs: list[bool] = []  # one for each run of the batch
        for number, (row, said) in enumerate(_zip(runs, visual_layout)):
            kinds = [kind for kind, count in said for _ in range(count)]
            if any(kind == "video" and run.length != frame for kind, run in zip(kinds, row, strict=True)):
                raise ScoreError(
                    f"visual_layout[{number}] must call a video what has runs of {frame} placeholders, the tokens of a "
                    f"frame, got {said!r} for runs of {[run.length for run in row]}"
                )
            video_runs += [kind == "video" for kind in kinds]
            sizes += [count for kind, count in said if kind == "video"]
        if not sizes:
            return None
        lengths = torch.tensor([run.length for row in runs for run in row], device=pictures.device)
        of_video = torch.tensor(video_runs, device=pictures.device).repeat_interleave(lengths)  # [F]
        seen: Seen | None = None
        if gate is not None:
            rows, seen = self._gated_rows(model, inputs, gate, sizes, of_video, frame)
        whole = features_at(prompt, pictures, rows, "picture")
        places = torch.zeros_like(whole.placeholders)
        places[whole.placeholders] = of_video
        side = math.isqrt(frame)
        videos = PackedVideos.from_grids(rows[of_video], [(frames, side, side) for frames in sizes])
        fixed = Features(rows[~of_video], whole.placeholders & ~places)
        return Visuals(videos, Features(videos.tokens, places), fixed, owner_of_videos(videos, places), seen)

    def _gated_rows(
        self, model: Any, inputs: Mapping[str, Any], gate: Gate, sizes: list[int], of_video: Tensor, frame: int
    ) -> tuple[Tensor, Seen]:
        """As :meth:`rows`, of images and of the frames that a gate keeps; the others are filled in.

        Args:
            sizes: the frames of each video.
            of_video: bool [F], of all tokens.
            frame: how many of them a frame has.
        """
        tiles, encode = self.tiles(model, inputs)
        video_tile = of_video[::frame]
        if len(tiles) != len(video_tile):
            count = int(video_tile.numel())
            raise ScoreError(f"inputs['pixel_values'] must have {count} pictures of {frame} tokens, got {len(tiles)}")
        frames = video_tile.nonzero()[:, 0]
        found = frames_of(gate, tiles[frames], sizes, lambda index: encode(frames[index]))
        rows = found.rows.new_empty(len(of_video), found.rows.shape[1])
        rows[of_video] = found.rows
        if len(frames) < len(tiles):
            rows[~of_video] = encode((~video_tile).nonzero()[:, 0])
        return rows, found.seen

    def _read(self, model: Any, prompt: Prompt, runs: Sequence[Sequence[_Run]], frame: int) -> list[list[Any]]:
        """What each prompt shows. Raises ValueError where its text does not tell."""
        tokenizer: Any = None
        layout: list[list[Any]] = []
        for number, (ids, row) in enumerate(zip(prompt.input_ids.tolist(), runs, strict=True)):
            images = self.surely_images(ids, row, frame)
            if not all(_covered(images)):
                tokenizer = tokenizer or _tokenizer_of(model)
                if tokenizer is None:
                    raise ScoreError(
                        f"visual_layout must be given: prompt {number} has runs of {[run.length for run in row]} "
                        "placeholders, which may be images as well as frames of videos, and the model has no tokenizer "
                        f"beside it (name_or_path {getattr(model, 'name_or_path', '')!r}) to read the text between "
                        f"them with. {_TELL}"
                    )
            try:
                layout.append(self._read_row(ids, row, images, partial(_decode, tokenizer)))
            except ValueError as error:
                raise ScoreError(f"visual_layout must be given: prompt {number} {error}. {_TELL}") from None
        return layout

    def _read_row(
        self, ids: Sequence[int], runs: Sequence[_Run], images: Sequence[int], decode: Callable[[Sequence[int]], str]
    ) -> list[Any]:
        parts: list[tuple[str, int]] = []
        covered = _covered(images)
        for number, run in enumerate(runs):
            if covered[number]:
                parts += [("image", images[number])] if images[number] else []
                continue
            begin = runs[number - 1].end + 1 if number else 0  # behind the mark that ends a picture
            between = ids[begin : max(begin, run.begin - self.marks)]
            text = decode(between[-_HEADING:])
            alone = len(between) <= _HEADING and number > 0
            before = parts[-1][1] if parts and parts[-1][0] == "video" else 0
            if before and self.is_frame(text, before, alone):
                parts[-1] = ("video", before + 1)
            else:
                parts.append(("video" if self.is_frame(text, 0, False) else "image", 1))
        return parts


class InternVL(FrameByFrame):
    """An image is one run, however many tiles it is cut into; a frame is one tile, headed "Frame1: "."""

    marks = 1  # <img>

    def tokens_per_frame(self, model: Any) -> int:
        vision = model.config.vision_config
        return int(vision.image_size[0] // vision.patch_size[0] * model.config.downsample_ratio) ** 2

    def tiles(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        pixels: Tensor = inputs["pixel_values"]
        return pixels, lambda index: self.rows(model, {"pixel_values": pixels[index]})[0]

    def rows(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, int]:
        tiles: Tensor = model.get_image_features(inputs["pixel_values"], return_dict=True).pooler_output  # [P, n, D]
        return tiles.flatten(0, 1), tiles.shape[1]

    def surely_images(self, ids: Sequence[int], runs: Sequence[_Run], frame: int) -> list[int]:
        del ids
        return [int(run.length != frame) for run in runs]

    def is_frame(self, text: str, before: int, alone: bool) -> bool:
        heading = re.search(r"(.*)Frame(\d+):\s*$", text, re.DOTALL)
        if heading is None:
            return False
        number = int(heading[2])
        if before:
            return alone and not heading[1].strip() and number == before + 1
        if number != 1:
            raise ScoreError(f"has a heading 'Frame{number}:' that goes on no video from its 'Frame1:'")
        return True


class SmolVLM(FrameByFrame):
    """SmolVLM2. An image is a run for each of the tiles it is cut into, and one for the whole.

    A frame is one run with the marks of a whole image, headed "Frame from 00:07:".
    """

    marks = 2  # <fake_token_around_image><global-img>

    def rows(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, int]:
        mask = inputs.get("pixel_attention_mask")
        rows = model.get_image_features(inputs["pixel_values"], mask, return_dict=True).pooler_output
        return torch.cat(list(rows)), self.tokens_per_frame(model)

    def tokens_per_frame(self, model: Any) -> int:
        vision = model.config.vision_config
        return int(vision.image_size // vision.patch_size // model.config.scale_factor) ** 2

    def tiles(self, model: Any, inputs: Mapping[str, Any]) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        pixels = inputs["pixel_values"].flatten(0, 1)
        there = pixels.flatten(1).any(1)  # prompts with fewer are padded with zeros, which the model leaves out too
        masks = inputs.get("pixel_attention_mask")
        pixels, masks = pixels[there], None if masks is None else masks.flatten(0, 1)[there]

        def encode(index: Tensor) -> Tensor:
            some = {"pixel_values": pixels[None, index]}
            some |= {} if masks is None else {"pixel_attention_mask": masks[None, index]}
            return self.rows(model, some)[0]

        return pixels, encode

    def surely_images(self, ids: Sequence[int], runs: Sequence[_Run], frame: int) -> list[int]:
        """A tile has its row and column in front of it; the last run of a prompt is a whole image, or a frame."""
        del frame
        before = [ids[run.begin - 1] if run.begin else -1 for run in runs]
        found = [0] * len(runs)
        first: int | None = None  # tile of an image
        for number, token in enumerate(before):
            if token != before[-1]:
                first = number if first is None else first
            elif first is not None:
                found[first], first = number + 1 - first, None
        return found

    def is_frame(self, text: str, before: int, alone: bool) -> bool:
        heading = r"Frame from \d+:\d\d:\s*"
        if before:
            return alone and re.fullmatch(r"\s*" + heading, text) is not None
        return re.search(heading + "$", text) is not None


def _covered(images: Sequence[int]) -> list[bool]:
    """Which runs belong to an image, of what :meth:`FrameByFrame.surely_images` returns."""
    covered = [False] * len(images)
    for number, count in enumerate(images):
        covered[number : number + count] = [True] * count
    return covered


def _runs(placeholders: Tensor) -> list[list[_Run]]:
    """The runs of placeholders, bool [B, S], in each prompt."""
    before = torch.nn.functional.pad(placeholders, (1, 0))[:, :-1]
    after = torch.nn.functional.pad(placeholders, (0, 1))[:, 1:]
    begins = (placeholders & ~before).nonzero().tolist()
    ends = (placeholders & ~after).nonzero()[:, 1].tolist()
    runs: list[list[_Run]] = [[] for _ in placeholders]
    for (row, begin), end in zip(begins, ends, strict=True):
        runs[row].append(_Run(begin, end - begin + 1))
    return runs


def _zip(runs: list[list[_Run]], visual_layout: VisualLayout) -> list[tuple[list[_Run], Any]]:
    """Each prompt's runs beside what is said of them. Raises ValueError where that is no description of them."""
    if len(visual_layout) != len(runs):
        raise ScoreError(f"visual_layout must have a list for each of {len(runs)} prompts, got {len(visual_layout)}")
    for number, (row, said) in enumerate(zip(runs, visual_layout, strict=True)):
        for part in said:
            if len(part) != 2 or part[0] not in ("image", "video") or not isinstance(part[1], int) or part[1] < 1:
                raise ScoreError(
                    f"visual_layout[{number}] must hold ('image', runs) and ('video', frames), got {part!r}"
                )
        if (total := sum(count for _, count in said)) != len(row):
            raise ScoreError(f"visual_layout[{number}] is of {total} runs of placeholders, the prompt has {len(row)}")
    return list(zip(runs, visual_layout, strict=True))


def _tokenizer_of(model: Any) -> Any:
    """The tokenizer that lies where the model was loaded from, on this machine; None: there is none."""
    name = getattr(model, "name_or_path", "")
    return _local_tokenizer(name) if isinstance(name, str) and name else None


@lru_cache(maxsize=8)
def _local_tokenizer(name: str) -> Any:
    from score_video.mllm.load import local_tokenizer

    return local_tokenizer(name)


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text
