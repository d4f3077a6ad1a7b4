"""What the trainer asks of a frozen video MLLM, and what passes between the two.

Anything with the two methods of :class:`Environment` can be trained on: the miniature's reader
(:mod:`score_video.miniature.environment`), and MLLMs of transformers (:mod:`score_video.mllm.environment`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from score_video.before_tower import Gate, Seen
from score_video.errors import ScoreError
from score_video.packed import PackedVideos, Selection

__all__ = ["EncodedBatch", "Environment", "Example", "Outcome", "Selection", "UnreadableError", "gate_of"]

Example = Mapping[str, Any]
"""One row of a dataset: a video (or where to find it), its questions and their answers; the environment's own keys."""


class UnreadableError(ScoreError):
    """The video or image of an example cannot be read; nothing is wrong with the others of the batch.

    Args:
        message: names the file, or else the example, and says why.
        position: index of the example in the batch.
    """

    def __init__(self, message: str, position: int = 0) -> None:
        super().__init__(message)
        self.position = position


@dataclass(frozen=True)
class EncodedBatch:
    """Examples after the vision tower.

    Attributes:
        videos: B of them; each is one group of the group-wise estimator.
        payload: whatever the environment needs again to answer: prompts, labels, the uncompressed output.
        question: float32 [B, E], an embedding of each example's question for a policy that is conditioned on it; None
            where there is none.
        seen: which of their tokens the vision tower has seen; the others are filled in, and never kept. None: all.
    """

    videos: PackedVideos
    payload: Any
    question: Tensor | None = None
    seen: Seen | None = None

    @property
    def everything(self) -> Selection:
        """All tokens, or all that a gate kept, as one choice for each video: keep [1, B]."""
        if self.seen is not None:
            return Selection(self.seen.kept.index, self.seen.kept.keep[None])
        device = self.videos.tokens.device
        return Selection(torch.arange(len(self.videos.tokens), device=device), self.videos.lengths[None])


@dataclass(frozen=True)
class Outcome:
    """What the frozen model made of each sample; float32 [G, B], each the mean over the video's questions.

    Behind a gate all tokens are those that it kept.

    Attributes:
        log_prob: log-probability of the right answer, at most 0 (where an answer has several tokens, of all of them).
        correct: share of questions answered rightly (the model's most probable answer), 0 to 1.
        divergence: KL(answer distribution on all tokens || on the kept ones), at least 0; None unless asked for.
        full_log_prob: float32 [B], ``log_prob`` on all tokens; None unless asked for.
    """

    log_prob: Tensor
    correct: Tensor
    divergence: Tensor | None = None
    full_log_prob: Tensor | None = None

    def to(self, device: torch.device | str) -> Outcome:
        """The same on another device."""
        optional = (None if part is None else part.to(device) for part in (self.divergence, self.full_log_prob))
        return Outcome(self.log_prob.to(device), self.correct.to(device), *optional)


def gate_of(environment: Environment) -> Gate | None:
    """What chooses before an environment's vision tower; None: nothing does."""
    gate: Gate | None = getattr(environment, "gate", None)
    return gate


class Environment(Protocol):
    """A frozen MLLM. Nothing in it is trained; it never builds a graph.

    ``answer`` may be without the keyword of an outcome that no reward asks for.
    One whose vision tower sees only what a gate chose has that gate as ``gate``, and says in its batches what was seen.
    Where several processes share one model, ``wait()``, which may be missing, is called once a process has nothing more
    to ask, and returns when none has.
    """

    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        """Runs the vision tower on the examples.

        Raises:
            UnreadableError: the video or image of one of them cannot be read: it may be left out.
            ValueError: an example is not as it should be.
        """
        ...

    def answer(
        self, batch: EncodedBatch, selection: Selection, *, divergence: bool = False, full: bool = False
    ) -> Outcome:
        """Answers each video's questions from the kept tokens alone, for each sample.

        Args:
            divergence, full: whether the outcome is to have ``divergence`` and ``full_log_prob``. What they need of the
                model on all tokens is worked out once for each question.
        """
        ...
