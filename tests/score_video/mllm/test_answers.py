"""Scoring answers: which prompts are needed, what counts as right, what diverges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.videos import write_video
from hypothesis import given
from hypothesis import strategies as st
from tiny import FAMILIES
from tiny_processor import END_OF_TURN, TinyProcessor, char_ids
from torch import Tensor

from score_video.mllm.conversation import read_clip
from score_video.mllm.environment.answers import (
    AnswerScore,
    Question,
    Tokens,
    choose_option,
    make_question,
    score_open,
    score_options,
    shared_beginnings,
)
from score_video.mllm.environment.encoded_video import EncodedVideo, encode_video

token_lists = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple)


@given(st.lists(token_lists, min_size=1, max_size=6, unique=True))
def test_as_few_beginnings_as_can_be(answers: list[Tokens]) -> None:
    beginnings, prompt_of = shared_beginnings(answers)
    for answer, row in zip(answers, prompt_of, strict=True):
        assert beginnings[row][: len(answer) - 1] == answer[:-1]
    assert set(prompt_of) == set(range(len(beginnings)))
    for a in beginnings:
        assert a in {answer[:-1] for answer in answers}
        assert not any(a == b[: len(a)] for b in beginnings if b is not a)


def test_letters_need_one_prompt() -> None:
    assert shared_beginnings([(5,), (6,), (7,), (8,)]) == ([()], [0, 0, 0, 0])


def log_probs(rows: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, 9, generator=torch.Generator().manual_seed(seed)).log_softmax(1)


def with_options(question: Question, rows: list[Tensor], reference: AnswerScore | None = None) -> AnswerScore:
    scores: dict[int, Tensor] = {}
    for prompt in reversed(range(len(rows))):  # they come in any order
        scores |= score_options(question, prompt, rows[prompt])
    return choose_option(question, scores, reference)


def test_options() -> None:
    question = Question(((1, 2), (1, 3, 4), (5,)), 1, (), (0, 0, 0))
    assert shared_beginnings(question.answers) == ([(1, 3)], [0, 0, 0])
    # of the row 1, 3: an answer's tokens after its own beginning, which for 1, 2 is 1
    whole, rows = log_probs(3), log_probs(3, seed=1)
    reference = with_options(question, [whole])
    kept = with_options(question, [rows], reference)
    p, q = (
        torch.stack([at[0, 1] + at[1, 2], at[0, 1] + at[1, 3] + at[2, 4], at[0, 5]]).softmax(0) for at in (whole, rows)
    )
    assert kept.distribution is not None and kept.divergence is not None and reference.divergence is None
    torch.testing.assert_close(kept.distribution, q.log())
    torch.testing.assert_close(kept.log_prob, q[1].log())
    torch.testing.assert_close(kept.divergence, (p * (p / q).log()).sum())
    assert with_options(question, [rows], kept).divergence == 0
    for right in range(3):
        other = Question(question.answers, right, (), question.prompt_of)
        assert bool(with_options(other, [rows]).correct) == (int(q.argmax()) == right)


def test_options_that_need_several_prompts() -> None:
    question = Question(((1, 2, 3), (4, 5), (6,)), 0, (), (0, 1, 0))
    assert shared_beginnings(question.answers) == ([(1, 2), (4,)], [0, 1, 0])
    first, second = log_probs(3), log_probs(2, seed=1)
    score = with_options(question, [first, second])
    sums = torch.stack([first[0, 1] + first[1, 2] + first[2, 3], second[0, 4] + second[1, 5], first[0, 6]])
    torch.testing.assert_close(score.distribution, sums.log_softmax(0))


def test_without_options() -> None:
    whole, rows = log_probs(3), log_probs(3, seed=1)
    greedy = tuple(rows.argmax(1).tolist())
    question = Question((greedy,), 0, (), (0,))
    reference = score_open(question, whole, None, keep_distribution=True)
    assert reference.divergence is None and reference.distribution is not None
    score = score_open(question, rows, reference, keep_distribution=False)
    assert bool(score.correct) and score.distribution is None and score.divergence is not None
    torch.testing.assert_close(score.log_prob, rows.amax(1).sum())
    want = torch.nn.functional.kl_div(rows, whole, log_target=True, reduction="sum") / 3
    torch.testing.assert_close(score.divergence, want)
    with pytest.raises(ValueError, match=r"reference\.distribution must be there for a divergence, got None"):
        score_open(question, rows, score, keep_distribution=False)
    for place in range(3):
        wrong = tuple((token + (n == place)) % 9 for n, token in enumerate(greedy))
        question = Question((wrong,), 0, (), (0,))
        assert not bool(score_open(question, rows, None, keep_distribution=False).correct)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, TinyProcessor, EncodedVideo]:
    family = FAMILIES["qwen2_5_vl"]()
    noise = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    path = write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", list(noise))
    processor = TinyProcessor(family)
    return family.model, processor, encode_video(family.model, processor, read_clip(path, 4, 10_000))


def test_an_option_that_begins_another_is_scored_as_a_whole(
    video: tuple[object, TinyProcessor, EncodedVideo],
) -> None:
    model, processor, encoded = video
    asked = {"question": "which?", "answer": "red", "options": ["red car", "red", "dog"]}
    question = make_question(model, processor, 0, encoded, asked)
    assert question.answers == tuple((*char_ids(option), END_OF_TURN) for option in asked["options"])
    assert question.right == 1
    assert sorted(prompt.given for prompt in question.prompts) == [3, 7]  # "red" is read on the way to "red car"
    different = {**asked, "options": ["blue", "red"]}
    assert make_question(model, processor, 0, encoded, different).answers == (
        tuple(char_ids("blue")),
        tuple(char_ids("red")),
    )
    alone = make_question(model, processor, 0, encoded, {**asked, "options": []})
    assert alone.answers == (tuple(char_ids("red")),) and not alone.has_options
    processor.tokenizer.eos_token_id = None
    try:
        with pytest.raises(ValueError, match="must have an eos_token for options of which one begins another"):
            make_question(model, processor, 0, encoded, asked)
    finally:
        del processor.tokenizer.eos_token_id
