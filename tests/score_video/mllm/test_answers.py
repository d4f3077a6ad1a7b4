"""Weighing answers: which prompts are needed, what counts as right, what diverges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import FAMILIES
from tiny_processor import END_OF_TURN, TinyProcessor, char_ids
from torch import Tensor
from videos import write_video

from score_video.mllm.conversation import read_clip
from score_video.mllm.environment.answers import (
    Question,
    Tokens,
    Verdict,
    divergence,
    is_right,
    log_prob,
    make_question,
    shared_beginnings,
    weigh,
)
from score_video.mllm.environment.encoded_video import EncodedVideo, encode_video

token_lists = st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple)


@given(st.lists(token_lists, min_size=1, max_size=6, unique=True))
def test_as_few_beginnings_as_can_be(answers: list[Tokens]) -> None:
    beginnings, row_of = shared_beginnings(answers)
    for answer, row in zip(answers, row_of, strict=True):
        assert beginnings[row][: len(answer) - 1] == answer[:-1]
    assert set(row_of) == set(range(len(beginnings)))
    for a in beginnings:
        assert a in {answer[:-1] for answer in answers}
        assert not any(a == b[: len(a)] for b in beginnings if b is not a)


def test_letters_need_one_prompt() -> None:
    assert shared_beginnings([(5,), (6,), (7,), (8,)]) == ([()], [0, 0, 0, 0])


def judged(question: Question, rows: list[Tensor], whole: Verdict | None = None) -> Verdict:
    verdict = Verdict()
    for row in reversed(range(len(rows))):  # they come in any order
        weigh(question, row, rows[row], verdict, keep=whole is None, whole=whole)
    return verdict


def log_probs(*sizes: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, 9, generator=generator).log_softmax(1) for size in sizes]


def test_options() -> None:
    question = Question(((1, 2), (1, 3, 4), (5,)), 1, (), (0, 0, 0))
    assert shared_beginnings(question.answers) == ([(1, 3)], [0, 0, 0])
    # of the row 1, 3: an answer's tokens after its own beginning, which for 1, 2 is 1
    whole, kept = (judged(question, log_probs(3, seed=seed)) for seed in (0, 1))
    (rows,) = log_probs(3, seed=1)
    scores = torch.stack([rows[0, 1] + rows[1, 2], rows[0, 1] + rows[1, 3] + rows[2, 4], rows[0, 5]])
    torch.testing.assert_close(kept.score_of(3), scores)
    p, q = whole.score_of(3).softmax(0), scores.softmax(0)
    torch.testing.assert_close(log_prob(question, kept), q[1].log())
    torch.testing.assert_close(divergence(question, whole, kept), (p * (p / q).log()).sum())
    assert divergence(question, kept, kept) == 0
    for right in range(3):
        other = Question(question.answers, right, (), question.row_of)
        assert bool(is_right(other, kept)) == (int(scores.argmax()) == right)


def test_without_options() -> None:
    (whole,), (rows,) = log_probs(3, seed=0), log_probs(3, seed=1)
    greedy = tuple(rows.argmax(1).tolist())
    question = Question((greedy,), 0, (), (0,))
    verdict = judged(question, [rows], judged(question, [whole]))
    assert bool(is_right(question, verdict))
    torch.testing.assert_close(log_prob(question, verdict), rows.amax(1).sum())
    want = torch.nn.functional.kl_div(rows, whole, log_target=True, reduction="sum") / 3
    torch.testing.assert_close(divergence(question, Verdict(), verdict), want)
    for place in range(3):
        wrong = tuple((token + (n == place)) % 9 for n, token in enumerate(greedy))
        question = Question((wrong,), 0, (), (0,))
        assert not bool(is_right(question, judged(question, [rows])))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, TinyProcessor, EncodedVideo]:
    family = FAMILIES["qwen2_5_vl"]()
    noise = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    path = write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", list(noise))
    processor = TinyProcessor(family)
    return family.model, processor, encode_video(family.model, processor, read_clip(path, 4, 10_000))


def test_an_option_that_begins_another_is_weighed_as_a_whole(
    video: tuple[object, TinyProcessor, EncodedVideo],
) -> None:
    model, processor, encoded = video
    asked = {"question": "which?", "answer": "red", "options": ["red car", "red", "dog"]}
    question = make_question(model, processor, 0, encoded, asked)
    assert question.answers == tuple((*char_ids(option), END_OF_TURN) for option in asked["options"])
    assert question.right == 1
    assert sorted(row.given for row in question.rows) == [3, 7]  # "red" is read on the way to "red car"
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
