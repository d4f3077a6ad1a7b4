"""The miniature as an environment: the same answers however samples and videos are put together."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.readers import tiny_reader
from helpers.videos import write_video
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from score_video import Compressor
from score_video.before_tower import Gate
from score_video.miniature.environment import MiniatureEnvironment, MiniatureVideos
from score_video.miniature.world import NOT_ASKED, TASKS
from score_video.rl import multiple_choice as module
from score_video.rl.environment import EncodedBatch, Outcome, Selection


@pytest.fixture(scope="module")
def environment() -> MiniatureEnvironment:
    return MiniatureEnvironment(tiny_reader())


@pytest.fixture(scope="module")
def ragged(environment: MiniatureEnvironment) -> EncodedBatch:
    """16 and 64 frames, movement and stills."""
    return environment.encode(EXAMPLES)


EXAMPLES = [
    MiniatureVideos("lookalike", "test", 1, 9)[4],
    MiniatureVideos("long", "test", 1, 9)[2],
    MiniatureVideos("static", "train", 2, 9)[0],
    MiniatureVideos("lookalike", "test", 1, 9)[1],
]


def draw(batch: EncodedBatch, keep: list[list[int]], seed: int = 0) -> Selection:
    """Random rows: keep[g][b] of video b in sample g."""
    generator = torch.Generator().manual_seed(seed)
    starts, lengths = batch.videos.cu_seqlens.tolist(), batch.videos.lengths.tolist()
    rows = [
        starts[b] + torch.randperm(lengths[b], generator=generator)[:count].sort().values
        for sample in keep
        for b, count in enumerate(sample)
    ]
    return Selection(torch.cat(rows), torch.tensor(keep, dtype=torch.int32))


def one_of(selection: Selection, g: int, b: int, first: int) -> Selection:
    """Sample g of video b alone, whose rows begin at ``first``."""
    ends = selection.keep.flatten().cumsum(0)
    number = g * selection.keep.shape[1] + b
    rows = selection.index[int(ends[number] - selection.keep[g, b]) : int(ends[number])]
    return Selection(rows - first, selection.keep[g : g + 1, b : b + 1])


def close(one: Outcome, other: Outcome) -> None:
    assert torch.allclose(one.log_prob, other.log_prob, atol=2e-5)
    assert torch.equal(one.correct, other.correct)
    assert one.divergence is not None and other.divergence is not None
    assert torch.allclose(one.divergence, other.divergence, atol=2e-5)


def part(outcome: Outcome, g: int, b: int) -> Outcome:
    assert outcome.divergence is not None
    values = (outcome.log_prob, outcome.correct, outcome.divergence)
    return Outcome(*(value[g : g + 1, b : b + 1] for value in values))


KEEP = [[57, 200, 20, 1], [10, 0, 576, 90], [0, 3, 100, 100]]


def test_samples_and_videos_together_answer_as_each_alone(
    environment: MiniatureEnvironment, ragged: EncodedBatch
) -> None:
    selection = draw(ragged, KEEP)
    together = environment.answer(ragged, selection, divergence=True)
    assert together.log_prob.shape == (3, 4)
    for b, example in enumerate(EXAMPLES):
        alone = environment.encode([example])
        first = int(ragged.videos.cu_seqlens[b])
        length = int(ragged.videos.lengths[b])
        assert torch.allclose(alone.videos.tokens, ragged.videos.tokens[first : first + length], atol=1e-6)
        assert torch.equal(alone.payload.place, ragged.payload.place[first : first + length])
        assert torch.equal(alone.payload.shown, ragged.payload.shown[first : first + length])
        assert torch.equal(alone.payload.answers[0], ragged.payload.answers[b])
        for g in range(3):
            answer = environment.answer(alone, one_of(selection, g, b, first), divergence=True)
            close(part(together, g, b), answer)


def test_how_many_are_read_at_once_does_not_matter(
    environment: MiniatureEnvironment, ragged: EncodedBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    selection = draw(ragged, KEEP)
    together = environment.answer(ragged, selection, divergence=True)
    monkeypatch.setattr(module, "_TOKENS_AT_ONCE", 150)
    close(environment.answer(ragged, selection, divergence=True), together)


@given(keep=st.lists(st.integers(0, 90_000), min_size=1, max_size=30))
def test_what_is_read_together(keep: list[int]) -> None:
    spans = module._spans(keep)
    assert [sample for first, last in spans for sample in range(first, last)] == list(range(len(keep)))
    for first, last in spans:
        assert last == first + 1 or max(keep[first:last]) * (last - first) <= module._TOKENS_AT_ONCE


def test_outcomes_by_definition(environment: MiniatureEnvironment, ragged: EncodedBatch) -> None:
    selection = draw(ragged, KEEP)
    outcome = environment.answer(ragged, selection, divergence=True)
    assert outcome.divergence is not None
    kept = environment.log_probabilities(ragged, selection)
    full = environment.full_log_probabilities(ragged)
    for g in range(3):
        for b in range(4):
            log_prob, right, divergence = [], [], []
            for number, answer in enumerate(ragged.payload.answers[b].tolist()):
                if answer != NOT_ASKED:
                    p, q = full[b, number].exp().tolist(), kept[g, b, number].exp().tolist()
                    log_prob.append(math.log(q[answer]))
                    right.append(max(range(len(q)), key=lambda a: q[a]) == answer)
                    count = len(TASKS[number].answers)
                    divergence.append(sum(p[a] * math.log(p[a] / q[a]) for a in range(count)))
            assert float(outcome.log_prob[g, b]) == pytest.approx(sum(log_prob) / len(log_prob), abs=1e-5)
            assert float(outcome.correct[g, b]) == pytest.approx(sum(right) / len(right))
            assert float(outcome.divergence[g, b]) == pytest.approx(sum(divergence) / len(divergence), abs=1e-5)
    assert (outcome.divergence >= 0).all()


def test_all_tokens_differ_by_nothing(environment: MiniatureEnvironment, ragged: EncodedBatch) -> None:
    everything = torch.arange(len(ragged.videos.tokens))
    twice = Selection(everything.repeat(2), ragged.videos.lengths.expand(2, -1))
    outcome = environment.answer(ragged, twice, divergence=True)
    assert outcome.divergence is not None
    assert float(outcome.divergence.max()) < 1e-5
    assert environment.answer(ragged, draw(ragged, KEEP)).divergence is None
    plain, asked = (environment.answer(ragged, draw(ragged, KEEP), **options) for options in ({}, {"full": True}))
    assert plain.full_log_prob is None and asked.full_log_prob is not None
    torch.testing.assert_close(asked.full_log_prob, outcome.log_prob[0], atol=1e-5, rtol=0)
    assert torch.equal(asked.log_prob, plain.log_prob)


def test_no_tokens_at_all(environment: MiniatureEnvironment, ragged: EncodedBatch) -> None:
    nothing = Selection(torch.empty(0, dtype=torch.int64), torch.zeros(2, 4, dtype=torch.int32))
    outcome = environment.answer(ragged, nothing, divergence=True)
    assert outcome.log_prob.isfinite().all() and (outcome.log_prob <= 0).all()
    # a guess that knows nothing of the video
    guesses = environment.log_probabilities(ragged, nothing)
    assert torch.equal(guesses, guesses[:1, :1].expand_as(guesses))


def test_nothing_of_the_reader_is_trained(environment: MiniatureEnvironment, ragged: EncodedBatch) -> None:
    reader = tiny_reader().train().requires_grad_(True)
    before = {name: weight.clone() for name, weight in reader.state_dict().items()}
    environment = MiniatureEnvironment(reader)
    assert not reader.training
    with torch.enable_grad():
        batch = environment.encode(EXAMPLES[:1])
        tokens = batch.videos.tokens.requires_grad_()
        outcome = environment.answer(batch, draw(batch, [[50]]), divergence=True)
    assert tokens.grad is None
    assert not any(value.requires_grad for value in (outcome.log_prob, outcome.correct, outcome.divergence))  # type: ignore[union-attr]
    assert all(not p.requires_grad and p.grad is None for p in reader.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in reader.state_dict().items())


def test_one_question_each(environment: MiniatureEnvironment) -> None:
    examples = MiniatureVideos("lookalike", "test", 1, 12, one_question=True)
    batch = environment.encode([examples[number] for number in range(12)])
    everything = environment.world("lookalike", "test", 1).videos(range(12)).answers
    asked = batch.payload.answers != NOT_ASKED
    assert (asked.sum(1) == 1).all()
    assert torch.equal(batch.payload.answers[asked], everything[asked])
    assert batch.question is not None
    assert torch.equal(batch.question, asked.float())
    assert len(batch.question.argmax(1).unique()) > 3
    assert environment.encode(EXAMPLES).question is None


@pytest.mark.parametrize("missing", ["split", "partition", "seed", "number", "one_question"])
def test_examples_of_another_kind(environment: MiniatureEnvironment, missing: str) -> None:
    example = {name: value for name, value in EXAMPLES[0].items() if name != missing}
    with pytest.raises(ValueError, match=f"an example of the miniature must have '{missing}'"):
        environment.encode([EXAMPLES[0], example])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"split": "plane"}, "split must be one of"),
        ({"split": "footage"}, "give footage"),
        ({"partition": "tests"}, "partition must be one of"),
        ({"seed": -1}, "seed must be 0 or more"),
        ({"one_question": True}, "all ask one question or all ask every one"),
    ],
)
def test_examples_that_cannot_be_made(environment: MiniatureEnvironment, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        environment.encode([EXAMPLES[0], {**EXAMPLES[1], **change}])


def test_no_examples(environment: MiniatureEnvironment) -> None:
    with pytest.raises(ValueError, match="examples must not be empty"):
        environment.encode([])


def test_the_dataset() -> None:
    videos = MiniatureVideos("plain", "validation", 3, 5)
    assert len(videos) == len(list(videos)) == 5
    assert videos[4] == {"split": "plain", "partition": "validation", "seed": 3, "number": 4, "one_question": False}
    for number in (-1, 5):
        with pytest.raises(IndexError, match=f"there are 5 videos, got number {number}"):
            videos[number]
    with pytest.raises(ValueError, match="num_videos must be 0 or more, got -1"):
        MiniatureVideos("plain", "test", 0, -1)


def test_footage_of_a_file(tmp_path: Path, clip: Path) -> None:
    environment = MiniatureEnvironment(tiny_reader(), clip)
    batch = environment.encode([MiniatureVideos("footage", "test", 0, 3)[1]])
    assert batch.videos.tokens.isfinite().all()
    # the others go on without it
    plain = MiniatureVideos("plain", "test", 0, 3)[1]
    without: Tensor = MiniatureEnvironment(tiny_reader()).encode([plain]).videos.tokens
    assert torch.equal(environment.encode([plain]).videos.tokens, without)
    short = write_video(tmp_path / "short.mp4", 9)
    with pytest.raises(ValueError, match=r"footage must be .* at least 16"):
        MiniatureEnvironment(tiny_reader(), short).encode([MiniatureVideos("footage", "test", 0, 3)[1]])


def test_a_reader_from_a_file(tmp_path: Path) -> None:
    tiny_reader(patch=6).save(tmp_path / "reader.safetensors")
    environment = MiniatureEnvironment(tmp_path / "reader.safetensors")
    assert environment.token_width == 8
    batch = environment.encode(EXAMPLES[:1])
    assert batch.videos.tokens_per_frame.tolist() == [16]
    assert batch.videos.columns.tolist() == [4]
    with pytest.raises(FileNotFoundError):
        MiniatureEnvironment(tmp_path / "none.safetensors")


@pytest.mark.parametrize("patch", [3, 4, 6])
def test_behind_a_gate(patch: int) -> None:
    """Features of what is kept are the whole tower's; the gate sees pixels; only what it kept is read."""
    reader = tiny_reader(patch=patch)
    gate = Gate(Compressor("evs-dithered", 0.3), 0, "evs-dithered")
    examples = [{**MiniatureVideos("plain", "test", 1, 5)[number]} for number in (0, 3)]
    ungated, gated = MiniatureEnvironment(reader), MiniatureEnvironment(reader, gate=gate)
    whole, part = ungated.encode(examples), gated.encode(examples)
    assert part.seen is not None and whole.seen is None
    kept = part.seen.kept
    lengths = whole.videos.lengths
    assert kept.keep.tolist() == [int(0.3 * length) for length in lengths.tolist()]
    assert torch.equal(part.videos.tokens[kept.index], whole.videos.tokens[kept.index])
    assert not torch.equal(part.videos.tokens, whole.videos.tokens)
    other = MiniatureEnvironment(tiny_reader(patch=patch, seed=1), gate=gate).encode(examples)
    assert other.seen is not None and torch.equal(other.seen.kept.index, kept.index)  # another tower, the same pixels
    answers = ungated.log_probabilities(whole, Selection(kept.index, kept.keep[None]))[0]
    torch.testing.assert_close(gated.full_log_probabilities(part), answers)
