"""Questions as they are put to an MLLM, and what its probabilities say about their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from score_video.errors import ScoreError
from score_video.mllm.adapter import Adapter
from score_video.mllm.conversation import chat_ids, chat_text
from score_video.mllm.environment.encoded_video import EncodedVideo
from score_video.mllm.environment.scoring import (
    AnswerPrompt,
    Kept,
    ShortPrompt,
    VideoFeatures,
    log_probabilities,
    make_prompt,
)

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class Question:
    """A question about a video.

    Attributes:
        answers: the options, or the one answer that there is, as tokens. Where one option is the beginning of another,
            all of the question's have the token that ends a turn as well, so that each is scored as a whole answer.
        right: which of them is right.
        prompts: the question, each time with the beginning of an answer, so that all answers' tokens can be scored. One
            without options has one prompt.
        prompt_of: for each answer which of these.
    """

    answers: tuple[Tokens, ...]
    right: int
    prompts: tuple[AnswerPrompt, ...]
    prompt_of: tuple[int, ...]

    @property
    def has_options(self) -> bool:
        """Whether it is multiple choice."""
        return len(self.answers) > 1


@dataclass(frozen=True)
class AnswerScore:
    """What a model makes of a question.

    Attributes:
        log_prob: float32 [], at most 0: of the right answer, the sum over its tokens (our reading); among the options,
            if there are any, whose probabilities are made to sum to 1 (our reading: what the model would say instead of
            an option is not asked).
        correct: bool []: the right option has the highest score; without options each token of the answer is the most
            probable one.
        divergence: float32 [], at least 0: KL(reference || this) (our reading), over the options; without options over
            the vocabulary, the mean over the answer's tokens. None where there is no reference.
        distribution: what others' divergence from this is taken by, as log-probabilities: float32 [options]; without
            options [tokens of the answer, vocabulary], or None where it was not to be kept.
    """

    log_prob: Tensor
    correct: Tensor
    divergence: Tensor | None = None
    distribution: Tensor | None = None


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
    beginnings, prompt_of = shared_beginnings(answers)
    text_ids = chat_ids(processor, chat_text(processor, asked["question"]))
    prompts = tuple(make_prompt(number, video.in_prompt(model, text_ids, given), len(given)) for given in beginnings)
    return Question(tuple(answers), options.index(asked["answer"]), prompts, tuple(prompt_of))


def shared_beginnings(answers: Sequence[Tokens]) -> tuple[list[Tokens], list[int]]:
    """Which beginnings have to be read to score all tokens of all answers, as few as can be; for each answer which.

    An answer's last token need not be read. Options of one token, such as letters, are all scored by one prompt.
    """
    needed = sorted({answer[:-1] for answer in answers}, key=lambda beginning: (-len(beginning), beginning))
    kept: list[Tokens] = []
    for beginning in needed:
        if not any(_begins(beginning, longer) for longer in kept):
            kept.append(beginning)
    return kept, [next(n for n, given in enumerate(kept) if _begins(answer[:-1], given)) for answer in answers]


def score_answers(
    model: Any,
    adapter: Adapter,
    features: VideoFeatures,
    asked: Sequence[tuple[Question, Kept]],
    references: Sequence[AnswerScore] | None = None,
    *,
    max_tokens: int,
    keep_distributions: bool = False,
) -> list[AnswerScore]:
    """What a model makes of questions, each from some of its video's tokens.

    Args:
        features: those of the questions' videos.
        asked: questions, each with the tokens kept.
        references: the scores of as many questions, with their distributions, for the divergence; or None.
        max_tokens: how many all prompts of a forward pass may have, with padding.
        keep_distributions: whether these scores will be references; a distribution over the vocabulary is large.
    """
    prompts = [ShortPrompt(whole, kept) for question, kept in asked for whole in question.prompts]
    # of each prompt: whose it is, and which of the question's
    places = [(number, n) for number, (question, _) in enumerate(asked) for n in range(len(question.prompts))]
    options: dict[int, dict[int, Tensor]] = {}
    scores: dict[int, AnswerScore] = {}
    for place, log_probs in log_probabilities(model, adapter, features, prompts, max_tokens):
        number, prompt = places[place]
        question, reference = asked[number][0], None if references is None else references[number]
        if question.has_options:
            options.setdefault(number, {}).update(score_options(question, prompt, log_probs))
        else:
            scores[number] = score_open(question, log_probs, reference, keep_distribution=keep_distributions)
    for number, of_options in options.items():
        reference = None if references is None else references[number]
        scores[number] = choose_option(asked[number][0], of_options, reference)
    return [scores[number] for number in range(len(asked))]


def score_options(question: Question, prompt: int, log_probs: Tensor) -> dict[int, Tensor]:
    """Of each option that one of the question's prompts is for, by its number: the log-probability, float32 [].

    Args:
        prompt: number of the prompt.
        log_probs: float32 [given + 1, vocabulary], after the prompt and after each token that is given.
    """
    return {
        number: _of_tokens(log_probs, answer).sum()
        for number, (answer, of) in enumerate(zip(question.answers, question.prompt_of, strict=True))
        if of == prompt
    }


def choose_option(question: Question, scores: Mapping[int, Tensor], reference: AnswerScore | None) -> AnswerScore:
    """What a model makes of a question with options, of which ``scores`` has all."""
    options = torch.stack([scores[number] for number in range(len(question.answers))])
    distribution = options.log_softmax(0)
    divergence = None
    if reference is not None:
        divergence = _divergence(_distribution(reference), distribution).sum().clamp(min=0)
    correct = options.argmax() == question.right
    return AnswerScore(distribution[question.right], correct, divergence, distribution)


def score_open(
    question: Question, log_probs: Tensor, reference: AnswerScore | None, *, keep_distribution: bool
) -> AnswerScore:
    """What a model makes of a question without options, from the log-probabilities after its one prompt.

    Args:
        log_probs: float32 [given + 1, vocabulary], as in :func:`score_options`.
    """
    (answer,) = question.answers
    tokens = torch.tensor(answer, device=log_probs.device)
    divergence = None
    if reference is not None:
        divergence = _divergence(_distribution(reference), log_probs).sum(1).mean().clamp(min=0)
    return AnswerScore(
        _of_tokens(log_probs, answer).sum(),
        (log_probs.argmax(1) == tokens).all(),
        divergence,
        log_probs.clone() if keep_distribution else None,
    )


def _of_tokens(log_probs: Tensor, answer: Tokens) -> Tensor:
    """float32 [n, 1]: of each token of an answer after those before it."""
    tokens = torch.tensor(answer, device=log_probs.device)
    return log_probs[: len(answer)].gather(1, tokens[:, None])


def _divergence(reference: Tensor, other: Tensor) -> Tensor:
    """The terms of KL(reference || other), of log-probabilities. Their sum may be below 0 by a rounding error."""
    return reference.exp() * (reference - other)


def _distribution(reference: AnswerScore) -> Tensor:
    if reference.distribution is None:
        raise ValueError("reference.distribution must be there for a divergence, got None")
    return reference.distribution


def _begins(beginning: Tokens, whole: Tokens) -> bool:
    return whole[: len(beginning)] == beginning


def _end_of_turn(processor: Any) -> int:
    token = processor.tokenizer.eos_token_id
    if not isinstance(token, int):
        raise ScoreError("processor.tokenizer must have an eos_token for options of which one begins another")
    return token
