"""A small language model that reads the tokens of a frozen real tower and answers the world's questions.

It is built as the miniature's reader is (:mod:`score_video.miniature.reader`): video tokens attend to video tokens, and
each question to them, so that what is made of the video does not depend on what is asked.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from score_video.composite.world import SYMBOLS, TASKS
from score_video.miniature.block import Block
from score_video.miniature.reader import PLACE_FEATURES, place_features
from score_video.miniature.reader_file import load_reader, save_reader
from score_video.rl.multiple_choice import log_probabilities

MOST_ANSWERS = max(TASKS.values())
HINTS = (2, 2, 2, 9, 9, 9)
"""Answers of questions that only training asks: does each ball move; in which eighth of the video are the flash, the
mark and the cut, 8: in none."""
_TRAINING_HEADS = ("hints", "names", "live")


@dataclass(frozen=True)
class ReaderConfig:
    """Sizes of a reader.

    Attributes:
        token_width: D, of the tower's tokens.
        tower: fingerprint of the tower that it was trained on.
        width, layers, heads: hidden size, depth and attention heads.
    """

    token_width: int
    tower: str
    width: int = 96
    layers: int = 4
    heads: int = 6


def shipped_reader() -> Path:
    """Where the weights that come with the package are: of DINOv2 ViT-S/14."""
    return Path(str(resources.files("score_video.composite") / "reader.safetensors"))


class Reader(nn.Module):
    """Tokens and their places -> answers."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.mean, self.scale = (nn.Buffer(of(config.token_width)) for of in (torch.zeros, torch.ones))
        self.project = nn.Sequential(nn.Linear(config.token_width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.place = nn.Linear(PLACE_FEATURES, width)
        nn.init.normal_(self.place.weight, std=PLACE_FEATURES**-0.5 * 1.5)
        self.questions = nn.Parameter(torch.randn(len(TASKS) + len(HINTS), width) * 0.5)
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.answers = nn.Linear(width, sum(TASKS.values()))
        # for training alone: answers to hints; what a token shows, by itself; whether that lives, in its context
        self.hints = nn.Linear(width, sum(HINTS))
        self.names = nn.Linear(width, len(SYMBOLS))
        self.live = nn.Linear(width, 1 + len(SYMBOLS))

    def projected(self, tokens: Tensor) -> Tensor:
        """What a token says by itself: [..., D] -> [..., width]."""
        return F.layer_norm(self.project((tokens - self.mean) * self.scale), (self.config.width,))

    def read(
        self, tokens: Tensor, place: Tensor, mask: Tensor | None = None, *, training: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Answers every question about each video from the tokens that are there.

        Args:
            tokens: [B, n, D].
            place: float32 [B, n, 3], where each was: t, y, x in [0, 1].
            mask: bool [B, n], False for rows that are padding; None: all are tokens.
            training: whether to ask the questions that only training asks too.

        Returns:
            log-probabilities of all answers [B, tasks, MOST_ANSWERS], -inf where a task has fewer; states of the
            questions [B, tasks (+ hints), width]; what each token says by itself and in its context [B, n, width].
        """
        alone = self.projected(tokens)
        video = alone + self.place(place_features(place))
        asked = (self.questions if training else self.questions[: len(TASKS)]).expand(len(tokens), -1, -1)
        keys = None if mask is None else mask[:, None, None, :]
        for block in self.blocks:
            video, asked = block(video, asked, keys)
        asked = self.norm(asked)
        logits = self.answers(asked[:, : len(TASKS)])
        return log_probabilities(logits, [*TASKS.values()]), asked, alone, self.norm(video)

    def save(self, path: Path) -> None:
        """Writes it (:func:`score_video.miniature.reader_file.save_reader`)."""
        save_reader(self, self.config, path, _TRAINING_HEADS)

    @classmethod
    def load(cls, path: Path) -> Reader:
        """A reader as :meth:`save` left it, frozen; errors are those of
        :func:`score_video.miniature.reader_file.load_reader`."""
        return load_reader(cls, ReaderConfig, path, _TRAINING_HEADS)
