"""Questions as they are put to an MLLM, and what its probabilities say about their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from score_video.errors import ScoreError
from score_video.mllm.conversation import chat_ids, chat_text
from score_video.mllm.environment.encoded_video import EncodedVideo
from score_video.mllm.environment.scoring import Row, make_row

Tokens = tuple[int, ...]

_UNKNOWN = torch.empty(0)


@dataclass(frozen=True)
class Question:
    """A question about a video.

    Attributes:
        answers: the options, or the one answer that there is, as tokens. Where one option is the beginning of another,
            all of the question's have the token that ends a turn as well, so that each is weighed as a whole answer.
        right: which of them is right.
        rows: prompts, each with the beginning of an answer, from which all answers' tokens can be weighed.
        row_of: for each answer which of these.
    """

    answers: tuple[Tokens, ...]
    right: int
    rows: tuple[Row, ...]
    row_of: tuple[int, ...]

    @property
    def has_options(self) -> bool:
        """Whether it is multiple choice."""
        return len(self.answers) > 1


@dataclass
class Verdict:
    """What a model makes of a question from some of a video's tokens; filled row by row (:func:`weigh`).

    Attributes:
        scores: each answer's log-probability, float32 []: the sum over its tokens (our reading).
        right: float32 [n, vocabulary], log-probabilities at the tokens of the right answer, each after those before it;
            kept where a divergence will be taken from it, else [0, vocabulary].
        greedy: bool [], whether each token of the right answer is the most probable one.
        token_divergence: float32 [], mean over the right answer's tokens of KL(``whole.right`` || ``right``).
    """

    scores: dict[int, Tensor] = field(default_factory=dict)
    right: Tensor = _UNKNOWN
    greedy: Tensor = _UNKNOWN
    token_divergence: Tensor = _UNKNOWN

    def score_of(self, answers: int) -> Tensor:
        """float32 [answers]."""
        return torch.stack([self.scores[number] for number in range(answers)])


def make_question(model: Any, processor: Any, number: int, video: EncodedVideo, asked: Mapping[str, Any]) -> Question:
    """Puts a question to a model.

    Args:
        number: the video's in the batch.
        asked: ``question``, ``answer`` and ``options``, as in :mod:`score_video.rl.data`.

    Raises:
        ValueError: the question or its options cannot be told apart from others in the model's tokens.
    """
    options = list(asked["options"]) or [asked["answer"]]
    answers = [tuple(processor.tokenizer(option, add_special_tokens=False)["input_ids"]) for option in options]
    if any(not answer for answer in answers) or len(set(answers)) < len(answers):
        raise ScoreError(f"answers must each have tokens of their own, which {options} have not")
    if any(_begins(a, b) for a in answers for b in answers if a != b):
        answers = [(*answer, _end_of_turn(processor)) for answer in answers]
    beginnings, row_of = shared_beginnings(answers)
    text_ids = chat_ids(processor, chat_text(processor, asked["question"]))
    rows = tuple(make_row(number, video.in_prompt(model, text_ids, given), len(given)) for given in beginnings)
    return Question(tuple(answers), options.index(asked["answer"]), rows, tuple(row_of))


def shared_beginnings(answers: Sequence[Tokens]) -> tuple[list[Tokens], list[int]]:
    """Which beginnings have to be read to weigh all tokens of all answers, as few as can be; for each answer which.

    An answer's last token need not be read. Options of one token, such as letters, are all weighed by one prompt.
    """
    needed = sorted({answer[:-1] for answer in answers}, key=lambda beginning: (-len(beginning), beginning))
    kept: list[Tokens] = []
    for beginning in needed:
        if not any(_begins(beginning, longer) for longer in kept):
            kept.append(beginning)
    return kept, [next(n for n, given in enumerate(kept) if _begins(answer[:-1], given)) for answer in answers]


def weigh(
    question: Question, row: int, found: Tensor, verdict: Verdict, *, keep: bool = False, whole: Verdict | None = None
) -> None:
    """Enters into a verdict what one of the question's rows says.

    Args:
        found: float32 [given + 1, vocabulary], log-probabilities after the prompt and after each token that is given.
        keep: whether ``verdict.right`` is kept.
        whole: the verdict on all tokens, with its ``right``, for ``token_divergence``.
    """
    for number, (answer, of) in enumerate(zip(question.answers, question.row_of, strict=True)):
        if of != row:
            continue
        at = found[: len(answer)]
        tokens = torch.tensor(answer, device=at.device)
        verdict.scores[number] = at.gather(1, tokens[:, None]).sum()
        if number == question.right:
            verdict.greedy = (at.argmax(1) == tokens).all()
            verdict.right = at.clone() if keep else at[:0]
            if whole is not None:
                verdict.token_divergence = (whole.right.exp() * (whole.right - at)).sum(1).mean()


def log_prob(question: Question, verdict: Verdict) -> Tensor:
    """float32 [], at most 0: of the right answer; among the options, if there are any, whose probabilities are made to
    sum to 1 (our reading: what the model would say instead of an option is not asked)."""
    if not question.has_options:
        return verdict.scores[question.right]
    return verdict.score_of(len(question.answers)).log_softmax(0)[question.right]


def is_right(question: Question, verdict: Verdict) -> Tensor:
    """bool []: the right option has the highest score; without options the right answer is the greedy one."""
    if not question.has_options:
        return verdict.greedy
    return verdict.score_of(len(question.answers)).argmax() == question.right


def divergence(question: Question, whole: Verdict, kept: Verdict) -> Tensor:
    """float32 []: KL(answers on all tokens || on the kept ones), at least 0 (our reading).

    Over the options where there are some, whose probabilities are made to sum to 1; else over the vocabulary,
    :attr:`Verdict.token_divergence`.
    """
    if question.has_options:
        p, q = (verdict.score_of(len(question.answers)).log_softmax(0) for verdict in (whole, kept))
        terms = (p.exp() * (p - q)).sum()
    else:
        terms = kept.token_divergence
    return terms.clamp(min=0)  # what is below is a rounding error


def _begins(beginning: Tokens, whole: Tokens) -> bool:
    return whole[: len(beginning)] == beginning


def _end_of_turn(processor: Any) -> int:
    token = processor.tokenizer.eos_token_id
    if not isinstance(token, int):
        raise ScoreError("processor.tokenizer must have an eos_token for options of which one begins another")
    return token
