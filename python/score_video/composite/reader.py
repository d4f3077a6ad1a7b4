"""A small language model that reads the tokens of a frozen real tower and answers the world's questions.

It is built as the miniature's reader is (:mod:`score_video.miniature.reader`): video tokens attend to video tokens, and
each question to them, so that what is made of the video does not depend on what is asked.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from score_video.composite.world import SYMBOLS, TASKS
from score_video.errors import ScoreError
from score_video.files import output_file
from score_video.miniature.reader import PLACE_FEATURES, Block, place_features
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
        """Weights in float16 without the heads of training, configuration in the file's metadata."""
        weights = {
            name: weight.half().contiguous()
            for name, weight in self.state_dict().items()
            if not name.startswith(_TRAINING_HEADS)
        }
        with output_file(path) as temporary:
            save_file(weights, temporary, {"config": json.dumps(asdict(self.config))})

    @classmethod
    def load(cls, path: Path) -> Reader:
        """A reader as :meth:`save` left it, frozen, in float32.

        Raises:
            FileNotFoundError: there is no such file.
            ScoreError: it is damaged, or holds anything but a reader of this world; names the file.
        """
        if not path.is_file():
            raise FileNotFoundError(2, "there are no weights of a reader", str(path))
        try:
            with safe_open(path, framework="pt") as file:
                config = ReaderConfig(**json.loads(file.metadata()["config"]))
                weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118  (not a dict)
            reader = cls(config).float()
            missing, unexpected = reader.load_state_dict(weights, strict=False)
        except (SafetensorError, TypeError, KeyError, ValueError, RuntimeError) as error:
            raise ScoreError(f"{path} holds no reader of this world: {error!r}") from None
        if odd := [*unexpected, *(name for name in missing if not name.startswith(_TRAINING_HEADS))]:
            raise ScoreError(f"{path} holds the weights of another reader: {odd[0]} is missing or not known")
        return reader.eval().requires_grad_(False)
