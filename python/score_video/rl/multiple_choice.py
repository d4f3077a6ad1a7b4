"""What a frozen model made of questions with a fixed set of answers each, as an outcome."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from score_video.rl.environment import Outcome

NOT_ASKED = -1
"""In place of the number of an answer."""


def log_probabilities(logits: Tensor, counts: Sequence[int]) -> Tensor:
    """Of every answer to every question, where each question has its own answers.

    Args:
        logits: [B, Q, sum of counts]; of question q only the span of its own answers is read.
        counts: Q of them, how many answers each question has.

    Returns:
        [B, Q, most answers of a question], -inf where a question has fewer.
    """
    parts, first, most = [], 0, max(counts)
    for number, count in enumerate(counts):
        own = logits[:, number, first : first + count].log_softmax(1)
        parts.append(F.pad(own, (0, most - count), value=-math.inf))
        first += count
    return torch.stack(parts, 1)


def outcome_of(log_p: Tensor, answers: Tensor, of_all: Tensor | None, *, divergence: bool, full: bool) -> Outcome:
    """The outcome of G samples of B videos.

    Args:
        log_p: float32 [G, B, Q, A], log-probabilities of the answers from the kept tokens; -inf where there are fewer.
        answers: int64 [B, Q], the right ones; NOT_ASKED where a video is not asked that question.
        of_all: float32 [B, Q, A], the same from all tokens; needed for ``divergence`` and ``full`` alone.
        divergence, full: what the outcome is to have besides.
    """
    asked = (answers != NOT_ASKED).float()
    questions = asked.sum(1).clamp(min=1)

    def of_right(of: Tensor) -> Tensor:
        """[..., Q, A] -> the mean over a video's questions of what its right answers have, [...]."""
        number = answers.clamp(min=0).expand(of.shape[:-1])[..., None]
        mean: Tensor = torch.where(asked.bool(), of.gather(-1, number)[..., 0], 0.0).sum(-1) / questions
        return mean

    correct = (log_p.argmax(3) == answers).float()
    kl = None
    if divergence:
        assert of_all is not None
        terms = of_all.exp() * (of_all - log_p)  # NaN where a question has no such answer: 0 * (-inf + inf)
        # what is below 0 is a rounding error
        kl = ((terms.nan_to_num(0.0).sum(3) * asked).sum(2) / questions).clamp(min=0)
    return Outcome(
        log_prob=of_right(log_p),
        correct=(correct * asked).sum(2) / questions,
        divergence=kl,
        full_log_prob=of_right(of_all) if full and of_all is not None else None,
    )
