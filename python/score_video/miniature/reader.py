"""A tiny video MLLM for the miniature world: a vision tower that sees one frame at a time, and a small language model
that reads the tokens it is given, with their places, and answers questions.

It has what matters for token compression in the large ones: tokens of one frame know nothing of the next, so that
motion has to be found by comparing tokens; the language model takes any subset of them; and a question is read after
the video, so that the video's part does not depend on it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from score_video.miniature.block import Block
from score_video.miniature.reader_file import load_reader, save_reader
from score_video.miniature.towers import AttentionTower, ConvolutionalTower
from score_video.miniature.world import NOT_ASKED, SIZE, TASKS
from score_video.rl.multiple_choice import log_probabilities

# Every answer of every task is a word of its own
_ANSWER_COUNTS = [len(task.answers) for task in TASKS]
NUM_ANSWERS = sum(_ANSWER_COUNTS)

# Questions that only training asks: does the square of each colour move; in which eighth do diamond and cross flash
HINT_ANSWERS = (2, 2, 2, 2, 8, 8)


@dataclass(frozen=True)
class ReaderConfig:
    """Sizes of a reader.

    Attributes:
        patch: pixels, each side of what one token stands for: 3, 4 or 6.
        tower_width: channels inside the vision tower.
        tower_depth: 1 x 1 layers after the convolutions; transformer layers of a tower that attends.
        tower_attends: whether the tower is a ViT, whose patches look at each other; else it is convolutions.
        token_width: D, of the tokens that the tower hands over.
        width, layers, heads: hidden size, depth and attention heads of the language model.
    """

    patch: int = 4
    tower_width: int = 96
    tower_depth: int = 0
    token_width: int = 64
    width: int = 96
    layers: int = 4
    heads: int = 6
    tower_attends: bool = False

    @property
    def columns(self) -> int:
        """Tokens in a row of a frame; a frame has as many rows."""
        return SIZE // self.patch


class Reader(nn.Module):
    """The whole model: ``tower``, then ``read``."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.patch, config.tower_width, config.tower_depth, config.token_width
        self.tower = AttentionTower(*sizes) if config.tower_attends else ConvolutionalTower(*sizes)
        self.project = nn.Linear(config.token_width, config.width)
        self.place = nn.Linear(PLACE_FEATURES, config.width)
        nn.init.normal_(self.place.weight, std=PLACE_FEATURES**-0.5 * 1.5)  # about as loud as the normalised tokens
        self.questions = nn.Parameter(torch.randn(len(TASKS) + len(HINT_ANSWERS), config.width) * 0.5)
        self.blocks = nn.ModuleList(Block(config.width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.answers = nn.Linear(config.width, NUM_ANSWERS)
        # only for training the reader: answers to hints, and whether a token shows something that moves or flashes
        self.hints = nn.Linear(config.width, sum(HINT_ANSWERS))
        self.live = nn.Linear(config.width, 1)

    def read(
        self, tokens: Tensor, place: Tensor, mask: Tensor | None = None, hints: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Answers every question about each video from the tokens that are there.

        Args:
            tokens: [B, n, D].
            place: float32 [B, n, 3], where each was: t, y, x in [0, 1].
            mask: bool [B, n], False for rows that are padding; None: all are tokens.
            hints: whether to ask the questions that only training asks too.

        Returns:
            states of the questions [B, tasks (+ hints), width], states of the tokens [B, n, width], both after the
            last norm; log-probabilities of all answers [B, tasks, most answers of a task], -inf where a task has fewer.
        """
        # Normalised, or the tokens drown their places, and what is asked about time is learned thousands of steps later
        projected = F.layer_norm(self.project(tokens), (self.config.width,))
        video = projected + self.place(place_features(place))
        questions = self.questions if hints else self.questions[: len(TASKS)]
        asked = questions.expand(len(tokens), -1, -1)
        keys = None if mask is None else mask[:, None, None, :]
        for block in self.blocks:
            video, asked = block(video, asked, keys)
        asked = self.norm(asked)
        return asked, self.norm(video), log_probabilities(self.answers(asked[:, : len(TASKS)]), _ANSWER_COUNTS)

    def save(self, path: Path) -> None:
        """Writes it (:func:`score_video.miniature.reader_file.save_reader`)."""
        save_reader(self, self.config, path, _TRAINING_HEADS)

    @classmethod
    def load(cls, path: Path) -> Reader:
        """A reader as :meth:`save` left it, frozen; errors are those of
        :func:`score_video.miniature.reader_file.load_reader`."""
        return load_reader(cls, ReaderConfig, path, _TRAINING_HEADS)


_TRAINING_HEADS = ("hints", "live")
_FREQUENCIES = (1.0, 2.0, 4.0, 8.0)  # half waves over the video or frame: smooth ones, so that they are learned quickly
PLACE_FEATURES = 3 + 3 * 2 * len(_FREQUENCIES)


def place_features(place: Tensor) -> Tensor:
    """[..., 3] in [0, 1] -> [..., 27]: ramps, sines and cosines."""
    waves = (place[..., None] * place.new_tensor([math.pi * f for f in _FREQUENCIES])).flatten(-2)
    return torch.cat([place * 2 - 1, waves.sin(), waves.cos()], -1)


def grid_places(frames: int, columns: int) -> Tensor:
    """float32 [frames * columns * columns, 3]: t, y, x of each token of a video, in [0, 1]."""
    t = torch.linspace(0, 1, frames, dtype=torch.float32, device="cpu")
    s = (torch.arange(columns, dtype=torch.float32, device="cpu") + 0.5) / columns
    return torch.stack(torch.meshgrid(t, s, s, indexing="ij"), 3).flatten(0, 2)


def answer_loss(log_probabilities: Tensor, answers: Tensor) -> Tensor:
    """Mean of -log-probability over the questions that are asked. [B, tasks, A], int64 [B, tasks] -> scalar."""
    asked = answers != NOT_ASKED
    right = log_probabilities.gather(2, answers.clamp(min=0)[..., None])[..., 0]
    return -right[asked].mean()
