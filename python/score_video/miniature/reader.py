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

from score_video.miniature.reader_file import load_reader, save_reader
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
        tower_depth: 1 x 1 layers after the convolutions.
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

    @property
    def columns(self) -> int:
        """Tokens in a row of a frame; a frame has as many rows."""
        return SIZE // self.patch


# Strides of the tower's convolutions for each size of patch: their product is the patch
_STRIDES = {3: (1, 3, 1), 4: (1, 2, 2), 6: (1, 2, 3)}


class Tower(nn.Module):
    """Frames -> tokens: three 3 x 3 convolutions; a token sees its patch and a little around it, in one frame."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        width = config.tower_width
        layers: list[nn.Module] = []
        channels = (3, width // 4, width // 2, width)
        for number, stride in enumerate(_STRIDES[config.patch]):
            layers += [nn.Conv2d(channels[number], channels[number + 1], 3, stride, padding=1), nn.GELU()]
        for _ in range(config.tower_depth):
            layers += [nn.Conv2d(width, width, 1), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, config.token_width, 1))

    def forward(self, pixels: Tensor) -> Tensor:
        """[B, T, 3, 24, 24] -> [B, T, rows * columns, D]."""
        features = self.layers((pixels.flatten(0, 1) - 0.4) * 2)  # [B * T, D, rows, columns]
        tokens: Tensor = features.flatten(2).transpose(1, 2)
        return tokens.view(*pixels.shape[:2], *tokens.shape[1:])


class Block(nn.Module):
    """A pre-norm transformer layer. Video tokens attend to video tokens, questions to video tokens."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def forward(self, video: Tensor, questions: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """video [B, n, width]; questions [B, Q, width]; mask bool [B, 1, 1, n], True where there is a token."""
        both = torch.cat([video, questions], 1)
        q, k, v = self.qkv(self.norm1(both)).chunk(3, 2)
        n = video.shape[1]
        attended = F.scaled_dot_product_attention(
            self._split(q), self._split(k[:, :n]), self._split(v[:, :n]), attn_mask=mask
        )
        both = both + self.out(attended.transpose(1, 2).flatten(2))
        both = both + self.down(F.gelu(self.up(self.norm2(both))))
        return both[:, :n], both[:, n:]


class Reader(nn.Module):
    """The whole model: ``tower``, then ``read``."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        self.tower = Tower(config)
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
