"""Questions with a fixed set of answers each: what a frozen model made of them; and small readers as environments."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from score_video.rl.environment import EncodedBatch, Example, Outcome, Selection

NOT_ASKED = -1
"""In place of the number of an answer."""

# Tokens that a reader reads at once: more gains nothing, and memory stays small
_TOKENS_AT_ONCE = 40_000


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


class ReaderEnvironment(ABC):
    """A small frozen reader that answers every question about a video at once, as an environment.

    A subclass encodes, and reads a padded batch. The payload of its batches has ``answers``, int64 [B, Q], and
    ``log_probabilities``: those on all tokens, [B, Q, A], once they have been asked for, and None before.
    """

    task_names: Sequence[str]
    """Of the Q questions, in the order of answers."""

    @abstractmethod
    def encode(self, examples: Sequence[Example]) -> EncodedBatch:
        """See :class:`score_video.rl.environment.Environment`."""

    @abstractmethod
    def read(self, batch: EncodedBatch, rows: Tensor, mask: Tensor | None) -> Tensor:
        """Log-probabilities of all answers, [samples, Q, A].

        Args:
            batch: what is read.
            rows: int64 [samples, n], of its tokens.
            mask: bool [samples, n], False for rows that are padding; None: there are none.
        """

    @torch.no_grad()
    def answer(
        self, batch: EncodedBatch, selection: Selection, *, divergence: bool = False, full: bool = False
    ) -> Outcome:
        """See :class:`score_video.rl.environment.Environment`."""
        of_all = self.full_log_probabilities(batch) if divergence or full else None
        log_p = self.log_probabilities(batch, selection)
        return outcome_of(log_p, batch.payload.answers, of_all, divergence=divergence, full=full)

    def full_log_probabilities(self, batch: EncodedBatch) -> Tensor:
        """[B, Q, A] on all tokens, or all that a gate kept; computed once for a batch."""
        if batch.payload.log_probabilities is None:
            batch.payload.log_probabilities = self.log_probabilities(batch, batch.everything)[0]
        log_p: Tensor = batch.payload.log_probabilities
        return log_p

    @torch.no_grad()
    def log_probabilities(self, batch: EncodedBatch, selection: Selection) -> Tensor:
        """Log-probabilities of all answers from the kept tokens alone, [G, B, Q, A]."""
        keep = selection.keep.flatten().long()  # [G * B]
        ends = keep.cumsum(0)
        parts = []
        for first, last in _spans(keep.tolist()):
            own = keep[first:last]
            mask = torch.arange(max(1, int(own.max())), device="cpu") < own[:, None]  # [samples, n]
            rows = torch.zeros(mask.shape, dtype=torch.int64, device="cpu")
            rows[mask] = selection.index[int(ends[first] - keep[first]) : int(ends[last - 1])]
            parts.append(self.read(batch, rows, None if bool(mask.all()) else mask))
        together = torch.cat(parts)
        return together.view(*selection.keep.shape, *together.shape[1:])


def _spans(keep: list[int]) -> list[tuple[int, int]]:
    """Samples to read together: (first, after the last), as many as fit when padded to the longest."""
    spans, first, longest = [], 0, 0
    for sample, count in enumerate(keep):
        if sample > first and max(longest, count) * (sample + 1 - first) > _TOKENS_AT_ONCE:
            spans.append((first, sample))
            first, longest = sample, 0
        longest = max(longest, count)
    return [*spans, (first, len(keep))]
