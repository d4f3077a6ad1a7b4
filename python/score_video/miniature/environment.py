"""The miniature as a thing to train on: its videos as a dataset, its reader as the frozen MLLM."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from score_video import thumbnails
from score_video.before_tower import Gate, Seen, check_pixels, fill_in, widened
from score_video.errors import ScoreError
from score_video.miniature.footage import load_footage, make_world
from score_video.miniature.reader import Reader, grid_places
from score_video.miniature.world import NOT_ASKED, TASK_NAMES, TASKS, Partition, World, thing_counts
from score_video.packed import PackedVideos
from score_video.rl.environment import EncodedBatch, Example
from score_video.rl.multiple_choice import ReaderEnvironment

_SAMPLES_AT_ONCE = 64  # that the tower sees


class MiniatureVideos(Dataset[Example]):
    """Videos of a split by number, as examples for :class:`MiniatureEnvironment`; nothing is stored.

    Args:
        split: a name in :data:`score_video.miniature.world.SPLITS`.
        partition: "train", "validation" or "test".
        seed: any integer from 0.
        num_videos: how many videos the data set has.
        one_question: each example asks one of its questions, for a policy that is conditioned on it.
        still: each example has its first frame as ``image``, float32 [24, 24, 3], for the curriculum's stage
            ``pseudo_video``. Only for a split in which nothing moves.

    Raises:
        ValueError: a negative number of videos; ``still`` of a split in which things move.
    """

    def __init__(
        self,
        split: str,
        partition: Partition,
        seed: int,
        num_videos: int,
        one_question: bool = False,
        still: bool = False,
    ) -> None:
        if num_videos < 0:
            raise ScoreError(f"num_videos must be 0 or more, got {num_videos}")
        self._stills = make_world(split, partition, seed, None) if still else None
        if self._stills is not None and self._stills.split.moving > 0:
            raise ScoreError(f"still must be False for a split in which things move, as they do in {split}")
        self._of = {"split": split, "partition": partition, "seed": seed, "one_question": one_question}
        self._num_videos = num_videos

    def __len__(self) -> int:
        return self._num_videos

    def __getitem__(self, number: int) -> dict[str, Any]:
        if not 0 <= number < self._num_videos:
            raise IndexError(f"there are {self._num_videos} videos, got number {number}")
        example = {**self._of, "number": number}
        if self._stills is not None:
            example["image"] = self._stills.videos([number]).pixels[0, 0].permute(1, 2, 0)
        return example


@dataclass
class MiniaturePayload:
    """What is known about an encoded batch beyond its tokens.

    Attributes:
        place: float32 [L, 3], t, y, x of each token.
        answers: int64 [B, tasks].
        shown: uint8 [L, NUM_THINGS], pixels of each thing in each token's patch, for the oracle and for pictures.
        pixels: the videos, float32 [T, 3, 24, 24], where a policy chooses before the vision tower.
        tokens: float32 [L, D], what the whole tower made of them, where no part of it makes anything else of a part.
        log_probabilities: [B, tasks, A] on all tokens, once they have been asked for.
    """

    place: Tensor
    answers: Tensor
    shown: Tensor
    pixels: Sequence[Tensor] | None = None
    tokens: Tensor | None = None
    log_probabilities: Tensor | None = None


def shipped_reader() -> Path:
    """Where the weights that come with the package are."""
    return Path(str(resources.files("score_video.miniature") / "reader.safetensors"))


class MiniatureEnvironment(ReaderEnvironment):
    """A frozen reader and the worlds its videos come from (:class:`score_video.rl.environment.Environment`).

    Args:
        reader: weights; None: those that come with the package.
        footage: a video for the backgrounds of the split ``footage``.
        gate: chooses before the vision tower; None: nothing does. To a tower of convolutions, as the package's reader
            has, that makes no difference: they see a token's patch and a little around it wherever they run.
        pixels: policies choose before the vision tower: they see thumbnails (:mod:`score_video.thumbnails`), and a
            tower that attends sees what they choose, for each sample anew.
        halo: with ``pixels``, how many rings of neighbours in the frame the tower sees besides.

    Raises:
        ScoreError: ``pixels`` with a gate, whose place the policy is to take; a ``halo`` without them.
    """

    task_names = TASK_NAMES

    def __init__(
        self,
        reader: Path | Reader | None = None,
        footage: Path | None = None,
        gate: Gate | None = None,
        pixels: bool = False,
        halo: int = 0,
    ) -> None:
        check_pixels(pixels, halo, gate)
        self.gate, self.pixels, self.halo = gate, pixels, halo
        self.reader = reader if isinstance(reader, Reader) else Reader.load(reader or shipped_reader())
        self.reader.eval().requires_grad_(False)
        self._footage = None if footage is None else load_footage(footage)
        self._worlds: dict[tuple[str, Partition, int], World] = {}

    def behind(self, gate: Gate | None) -> MiniatureEnvironment:
        """The same, but that a gate chooses what of each video the vision tower sees."""
        check_pixels(self.pixels, self.halo, gate)
        other = copy.copy(self)
        other.gate = gate
        return other

    @property
    def token_width(self) -> int:
        """D of the tokens that a policy will see."""
        return thumbnails.PATCH_WIDTH if self.pixels else self.reader.config.token_width

    def world(self, split: str, partition: Partition, seed: int) -> World:
        """The world whose videos examples name. Raises ValueError for a split that there is not, or without footage."""
        key = (split, partition, seed)
        if key not in self._worlds:
            self._worlds[key] = make_world(split, partition, seed, self._footage)
        return self._worlds[key]

    @torch.no_grad()
    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        """Makes the videos and runs the vision tower on them.

        Args:
            examples: those of :class:`MiniatureVideos`: at least one; all of them ask one question, or none does. One
                with ``frames``, float [T, 24, 24, 3], T as in its split, is seen in these instead of in its own: a
                pseudo-video of its still. Then it does not ask for the quadrant, which is another one wherever the
                camera looks, and what is ``shown`` is not known: 0.

        Raises:
            ValueError: examples of another kind, or of a split that there is not; frames of another shape.
        """
        _check(examples)
        groups: dict[tuple[str, Partition, int], list[int]] = {}
        for position, example in enumerate(examples):
            groups.setdefault((example["split"], example["partition"], example["seed"]), []).append(position)
        pixels: list[Tensor] = [torch.empty(0, device="cpu")] * len(examples)
        shown = list(pixels)
        answers = torch.full((len(examples), len(TASKS)), NOT_ASKED, device="cpu")
        for key, positions in groups.items():
            made = self.world(*key).videos([examples[position]["number"] for position in positions])
            for row, position in enumerate(positions):
                answers[position] = made.answers[row]
                if "frames" in examples[position]:
                    made.pixels[row] = _pixels_of(examples[position]["frames"], made.pixels[row].shape)
                    answers[position, TASK_NAMES.index("quadrant")] = NOT_ASKED
            counts = thing_counts(made.things, self.reader.config.patch)
            for row, position in enumerate(positions):
                pixels[position] = made.pixels[row]
                shown[position] = torch.zeros_like(counts[row]) if "frames" in examples[position] else counts[row]
        question = None
        if examples[0]["one_question"]:
            answers, question = _ask_one(answers, [example["number"] for example in examples])
        columns = self.reader.config.columns
        place = torch.cat([grid_places(len(video), columns) for video in pixels])
        payload = MiniaturePayload(place, answers, torch.cat(shown), pixels if self.pixels else None)
        if self.pixels:
            if not self.reader.config.tower_attends:
                payload.tokens = self._tokens(pixels, list(groups.values()), None).tokens
            return EncodedBatch(self._thumbnails(pixels), payload, question)
        seen = None if self.gate is None else self.gate.choose(self._thumbnails(pixels))
        return EncodedBatch(self._tokens(pixels, list(groups.values()), seen), payload, question, seen)

    def _tokens(self, pixels: Sequence[Tensor], groups: Sequence[Sequence[int]], seen: Seen | None) -> PackedVideos:
        """What the tower makes of videos; what it has not seen is filled in.

        Args:
            pixels: B videos [T, 3, 24, 24].
            groups: positions of videos of one length, which the tower sees together.
        """
        columns = self.reader.config.columns
        grids = [(len(video), columns, columns) for video in pixels]
        lengths = [frames * rows * columns for frames, rows, columns in grids]
        there = None
        if seen is not None:
            flat = torch.zeros(sum(lengths), dtype=torch.bool, device="cpu").index_fill_(0, seen.encoded, True)
            there = flat.split(lengths)  # type: ignore[no-untyped-call]
        tokens: list[Tensor] = [torch.empty(0, device="cpu")] * len(pixels)
        for positions in groups:
            part = None if there is None else torch.stack([there[position] for position in positions])
            encoded = self.encode_pixels(torch.stack([pixels[position] for position in positions]), part)
            for position, of_video in zip(positions, encoded, strict=True):
                tokens[position] = of_video.flatten(0, 2)
        packed = PackedVideos.from_grids(torch.cat(tokens), grids)
        return packed if seen is None else fill_in(packed, seen.kept.index)

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor, seen: Tensor | None = None) -> Tensor:
        """[B, T, 3, 24, 24], and which of their tokens the tower sees, bool [B, T * rows * columns] or None for all ->
        tokens [B, T, rows, columns, D]."""
        columns = self.reader.config.columns
        there = None if seen is None else seen.view(*pixels.shape[:2], -1)
        tokens: Tensor = self.reader.tower(pixels, there)
        return tokens.view(*tokens.shape[:2], columns, columns, -1)

    def _thumbnails(self, videos: Sequence[Tensor]) -> PackedVideos:
        """What a gate chooses from, of videos [T, 3, 24, 24]."""
        columns = self.reader.config.columns
        grids = [(len(video), columns, columns) for video in videos]
        return thumbnails.of_patches(torch.cat(list(videos)), self.reader.config.patch, grids)

    def read(self, batch: EncodedBatch, rows: Tensor, mask: Tensor | None) -> Tensor:
        """See :class:`~score_video.rl.multiple_choice.ReaderEnvironment`."""
        payload: MiniaturePayload = batch.payload
        if payload.pixels is None:
            tokens = batch.videos.tokens[rows]
        else:
            tokens = self._chosen(batch, rows, mask) if payload.tokens is None else payload.tokens[rows]
        return self.reader.read(tokens, payload.place[rows], mask)[2]

    def _chosen(self, batch: EncodedBatch, rows: Tensor, mask: Tensor | None) -> Tensor:
        """What the tower makes of each sample's tokens when it sees these and their halo alone: [samples, n, D].

        Args:
            rows, mask: as for :meth:`read`; a sample's rows are of one video.
        """
        videos, columns = batch.videos, self.reader.config.columns
        lengths, starts = videos.lengths.long(), videos.cu_seqlens[:-1].long()
        owner = videos.video_of_token[rows[:, 0]]  # [samples]
        places = rows - starts[owner][:, None]
        chosen = rows.new_zeros(*rows.shape, self.reader.config.token_width, dtype=torch.float32)
        for length in sorted(set(lengths[owner].tolist())):
            for samples in (lengths[owner] == length).nonzero()[:, 0].split(_SAMPLES_AT_ONCE):
                seen = torch.zeros(len(samples), length, dtype=torch.bool, device="cpu")
                own = places[samples]
                if mask is not None:  # padding goes where the sample's first token is
                    own = own.where(mask[samples], own[:, :1])
                seen.scatter_(1, own, True)
                seen = widened(seen.view(len(samples), -1, columns, columns), self.halo).flatten(1)
                pixels = torch.stack([batch.payload.pixels[video] for video in owner[samples].tolist()])
                tokens = self.encode_pixels(pixels, seen).flatten(1, 3)
                chosen[samples] = tokens.gather(1, own[..., None].expand(-1, -1, tokens.shape[2]))
        return chosen


def _check(examples: Sequence[Example]) -> None:
    """Raises ValueError unless the examples are of the miniature and go together."""
    if not examples:
        raise ScoreError("examples must not be empty")
    wanted = {"split", "partition", "seed", "number", "one_question"}
    for example in examples:
        if missing := sorted(wanted - set(example)):
            raise ScoreError(f"an example of the miniature must have {missing[0]!r}, got {sorted(example)}")
        if example["one_question"] != examples[0]["one_question"]:
            raise ScoreError("examples must all ask one question or all ask every one, got both in a batch")


def _pixels_of(frames: Tensor, shape: torch.Size) -> Tensor:
    """[T, 24, 24, 3] -> [T, 3, 24, 24], of that shape."""
    pixels = frames.permute(0, 3, 1, 2) if frames.ndim == 4 else frames
    if pixels.shape != shape or not pixels.is_floating_point():
        wanted = [shape[0], *shape[2:], 3]
        raise ScoreError(f"frames must be floating point {wanted}, got {frames.dtype} {list(frames.shape)}")
    return pixels


def _ask_one(answers: Tensor, numbers: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Leaves one of each video's questions, by a number of the video's: answers, and which one, float32 [B, tasks]."""
    question = torch.zeros(answers.shape, dtype=torch.float32, device="cpu")
    for video, number in enumerate(numbers):
        asked = (answers[video] != NOT_ASKED).nonzero()[:, 0]
        question[video, asked[number % len(asked)]] = 1
    return answers.masked_fill(question == 0, NOT_ASKED), question
