"""A frozen MLLM as an environment: it says what the stock model says with the dropped tokens masked out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.given import given_samples
from helpers.videos import write_video
from masked import stock_positions
from PIL import Image
from tiny import FAMILIES, Family
from tiny_processor import PLACEHOLDER, TinyProcessor, char_ids
from torch import Tensor

from score_video.mllm import encode_inputs
from score_video.mllm.conversation import chat_text, processor_inputs, read_clip
from score_video.mllm.environment import MAX_PIXELS, MllmEnvironment
from score_video.policy import SurprisePolicy, SurprisePolicyConfig
from score_video.rl.environment import EncodedBatch, Selection

FRAMES = 4
OPEN = {"question": "what?", "answer": "cat", "options": []}
LETTERS = {"question": "A or B", "answer": "B", "options": ["A", "B"]}
WORDS = {"question": "which one", "answer": "red", "options": ["red car", "red", "dog"]}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    noise = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 3), dtype=np.uint8)
    folder = tmp_path_factory.mktemp("clips")
    return [write_video(folder / f"{n}.mp4", list(frames)) for n, frames in enumerate(noise)]


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> Family:
    return FAMILIES[request.param]()


@pytest.fixture(scope="module")
def qwen() -> Family:
    return FAMILIES["qwen2_5_vl"]()


def make(family: Family, cache_dir: Path | None = None, **options: Any) -> MllmEnvironment:
    return MllmEnvironment(family.model, TinyProcessor(family), cache_dir, **{"num_frames": FRAMES, **options})


def example(video: Path, *questions: dict[str, Any]) -> dict[str, Any]:
    return {"id": "1", "video": str(video), "image": None, "questions": list(questions)}


def everything(batch: EncodedBatch) -> Selection:
    return given_samples(batch, [[range(length) for length in batch.videos.lengths.tolist()]])


def some(batch: EncodedBatch) -> list[list[list[int]]]:
    """Two samples, of different sizes."""
    lengths = batch.videos.lengths.tolist()
    return [[list(range(0, n, 3)) for n in lengths], [[0], [2, 5, lengths[1] - 1]]]


def stock_log_probs(family: Family, video: Path, asked: dict[str, Any], kept: Sequence[int]) -> list[Tensor]:
    """For each option, or for the answer, [its tokens, vocabulary]: the stock model on the whole prompt and the answer,
    what is dropped masked out."""
    found = []
    for answer in asked["options"] or [asked["answer"]]:
        processor = TinyProcessor(family)
        text = chat_text(processor, asked["question"])
        inputs = processor_inputs(processor, read_clip(video, FRAMES, MAX_PIXELS), text)
        tokens = torch.tensor([char_ids(answer)])
        more = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
        if "mm_token_type_ids" in inputs:
            more["mm_token_type_ids"] = torch.zeros_like(tokens)
        inputs |= {name: torch.cat([inputs[name], values], 1) for name, values in more.items()}
        positions = stock_positions(family.model, inputs)
        inputs["attention_mask"][0, [place for n, place in enumerate(processor.places) if n not in kept]] = 0
        inputs.pop("mm_token_type_ids", None)
        with torch.no_grad():
            logits = family.model(**inputs, position_ids=positions).logits[0]
        found.append(logits[-1 - tokens.shape[1] : -1].log_softmax(1))
    return found


def plain(asked: dict[str, Any], full: list[Tensor], ours: list[Tensor]) -> tuple[float, float, float]:
    """log_prob, correct and divergence of a question from what :func:`stock_log_probs` found."""
    if not asked["options"]:
        tokens = torch.tensor(char_ids(asked["answer"]))
        kl = torch.nn.functional.kl_div(ours[0], full[0], log_target=True, reduction="sum") / len(tokens)
        at = ours[0].gather(1, tokens[:, None])
        return float(at.sum()), float((ours[0].argmax(1) == tokens).all()), float(kl)
    answers = [torch.tensor(char_ids(option))[:, None] for option in asked["options"]]
    p, q = (
        torch.stack([at.gather(1, answer).sum() for answer, at in zip(answers, found, strict=True)]).softmax(0)
        for found in (full, ours)
    )
    right = asked["options"].index(asked["answer"])
    return float(q[right].log()), float(q.argmax() == right), float((p * (p / q).log()).sum())


def test_equal_to_a_plain_loop_over_the_stock_model(family: Family, clips: list[Path]) -> None:
    environment = make(family, max_tokens_per_forward=150)
    questions = [[OPEN, LETTERS], [OPEN]]
    batch = environment.encode([example(clip, *asked) for clip, asked in zip(clips, questions, strict=True)])
    samples = some(batch)
    outcome = environment.answer(batch, given_samples(batch, samples), divergence=True)
    whole = list(range(int(batch.videos.lengths.max())))
    want = torch.empty(3, 2, 2)
    for b, clip in enumerate(clips):
        full = [stock_log_probs(family, clip, asked, whole) for asked in questions[b]]
        for g, sample in enumerate(samples):
            ours = [stock_log_probs(family, clip, asked, sample[b]) for asked in questions[b]]
            rows = [plain(asked, *both) for asked, *both in zip(questions[b], full, ours, strict=True)]
            want[:, g, b] = torch.tensor(rows).mean(0)
    got = torch.stack([outcome.log_prob, outcome.correct, outcome.divergence])
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)
    assert (want[2] > 1e-4).all() and len(want[0].unique()) == 4  # the selections do make a difference


def test_all_tokens_diverge_by_nothing_and_none_can_be_kept(family: Family, clips: list[Path]) -> None:
    environment = make(family)
    batch = environment.encode([example(clip, OPEN, WORDS) for clip in clips])
    outcome = environment.answer(batch, everything(batch), divergence=True)
    assert outcome.divergence is not None
    torch.testing.assert_close(outcome.divergence, torch.zeros(1, 2), atol=1e-6, rtol=0)
    assert environment.answer(batch, everything(batch)).divergence is None
    for samples in ([[[], []]], [[[], [1]], [[3, 4], []]]):
        outcome = environment.answer(batch, given_samples(batch, samples), divergence=True)
        assert outcome.log_prob.shape == (len(samples), 2)
        assert outcome.log_prob.isfinite().all() and (outcome.log_prob < 0).all()
        assert outcome.divergence is not None and (outcome.divergence > 0).all()


def test_the_full_answer_is_that_on_all_tokens_and_read_once(
    family: Family, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = make(family)
    examples = [example(clips[0], OPEN, WORDS), example(clips[1], LETTERS)]
    batch = environment.encode(examples)
    outcome = environment.answer(batch, given_samples(batch, some(batch)), full=True)
    on_all = environment.answer(batch, everything(batch)).log_prob[0]
    assert outcome.full_log_prob is not None and outcome.full_log_prob.shape == (2,)
    torch.testing.assert_close(outcome.full_log_prob, on_all, atol=2e-5, rtol=0)
    assert environment.answer(batch, given_samples(batch, some(batch))).full_log_prob is None

    # in another batch they are known, to the bit; a pseudo-video's are not
    scored = []
    score = environment._score_asked

    def counted(payload: Any, asked: Any, *rest: Any, **options: Any) -> Any:
        scored.append(len(asked))
        return score(payload, asked, *rest, **options)

    monkeypatch.setattr(environment, "_score_asked", counted)
    other = environment.encode([examples[1], example(clips[0], OPEN)])
    again = environment.answer(other, given_samples(other, [some(other)[0]]), full=True)
    assert again.full_log_prob is not None and scored == [2]  # the samples alone
    assert torch.equal(again.full_log_prob[0], outcome.full_log_prob[1])
    still = environment.encode([{"image": torch.rand(28, 28, 3), "questions": [OPEN]}])
    for _ in range(2):
        environment.answer(still, everything(still), full=True)
    assert scored == [2, 1, 1, 1, 1]


@pytest.mark.parametrize("limit", [1, 70, 10**9])
def test_how_many_prompts_are_read_at_once_does_not_show(qwen: Family, clips: list[Path], limit: int) -> None:
    environments = make(qwen, max_tokens_per_forward=limit), make(qwen, max_tokens_per_forward=200)
    outcomes = []
    for environment in environments:
        batch = environment.encode([example(clip, OPEN, WORDS, LETTERS) for clip in clips])
        outcomes.append(environment.answer(batch, given_samples(batch, some(batch)), divergence=True))
    torch.testing.assert_close(outcomes[0].log_prob, outcomes[1].log_prob, atol=2e-5, rtol=0)
    torch.testing.assert_close(outcomes[0].divergence, outcomes[1].divergence, atol=2e-5, rtol=0)
    assert torch.equal(outcomes[0].correct, outcomes[1].correct)


def test_forward_passes_are_as_large_as_they_may_be(
    qwen: Family, clips: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = make(qwen, max_tokens_per_forward=200)
    batch = environment.encode([example(clip, OPEN) for clip in clips])
    seen: list[tuple[int, ...]] = []
    forward = qwen.model.forward

    def watched(**inputs: Any) -> Any:
        output = forward(**inputs)
        seen.append((*inputs["input_ids"].shape, output.logits.shape[1]))
        return output

    monkeypatch.setattr(qwen.model, "forward", watched)
    environment.answer(batch, given_samples(batch, [[[0, 1], [2, 3]]] * 10))
    length = len("user:  assistant: what?") + 2 + 2 + 2  # the video's start and end, what is kept, "ca" of "cat"
    fit = 200 // length
    assert [rows for rows, _, _ in seen] == [fit] * (20 // fit) + [20 % fit] * (20 % fit > 0)
    assert all(columns == length and logits == 3 for _, columns, logits in seen)


def test_no_graph_and_no_change(qwen: Family, clips: list[Path]) -> None:
    before = {name: value.clone() for name, value in qwen.model.state_dict().items()}
    qwen.model.train().requires_grad_(True)
    environment = make(qwen, one_question=True)
    assert not qwen.model.training and not any(p.requires_grad for p in qwen.model.parameters())
    batch = environment.encode([example(clip, OPEN) for clip in clips])
    outcome = environment.answer(batch, given_samples(batch, some(batch)), divergence=True)
    assert batch.question is not None and outcome.divergence is not None
    tensors = batch.videos.tokens, batch.question, outcome.log_prob, outcome.correct, outcome.divergence
    assert all(tensor.grad_fn is None and not tensor.is_inference() for tensor in tensors)
    assert all(torch.equal(before[name], value) for name, value in qwen.model.state_dict().items())
    config = SurprisePolicyConfig(token_width=environment.token_width, question_width=environment.token_width)
    policy = SurprisePolicy(config)
    policy(batch.videos, batch.question).sum().backward()
    assert all(p.grad is not None for p in policy.parameters())


def test_what_the_policy_sees_is_what_it_will_see_in_front_of_generate(family: Family, clips: list[Path]) -> None:
    environment = make(family, one_question=True)
    batch = environment.encode([example(clip, OPEN) for clip in clips])
    assert batch.question is not None
    processor = TinyProcessor(family)
    for number, clip in enumerate(clips):
        text = chat_text(processor, OPEN["question"])
        with torch.no_grad():
            inputs = processor_inputs(processor, read_clip(clip, FRAMES, MAX_PIXELS), text)
            encoded = encode_inputs(family.model, inputs, visual_layout=[[("video", FRAMES)]] if family.told else None)
            assert encoded is not None
            torch.testing.assert_close(batch.question[number], encoded.question()[0])
        videos, first = encoded.visuals.videos, int(batch.videos.cu_seqlens[number])
        assert torch.equal(batch.videos.tokens[first : first + len(videos.tokens)], videos.tokens)
        assert int(videos.tokens_per_frame) == int(batch.videos.tokens_per_frame[number])
        assert int(videos.columns) == int(batch.videos.columns[number])


def test_the_vision_side_runs_once_for_all_questions(qwen: Family, clips: list[Path]) -> None:
    environment = make(qwen)
    environment.encode([example(clips[0], OPEN, LETTERS, WORDS)])
    assert environment.processor.calls == 1


def test_pseudo_videos_and_images(qwen: Family, tmp_path: Path) -> None:
    environment = make(qwen, tmp_path / "cache", num_frames=3)
    still = np.random.default_rng(1).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    Image.fromarray(still).save(tmp_path / "still.png")
    repeated = torch.from_numpy(still).expand(3, -1, -1, -1)
    examples: list[dict[str, Any]] = [
        {"id": "a", "frames": repeated, "questions": [OPEN]},
        {"id": "b", "frames": repeated.double() / 255, "video": None, "questions": [OPEN]},
        {"id": "c", "image": Image.fromarray(still), "video": None, "questions": [OPEN]},
        {"id": "d", "image": str(tmp_path / "still.png"), "questions": [OPEN]},
    ]
    batch = environment.encode(examples)
    videos = batch.videos.tokens.split(batch.videos.lengths.tolist())
    assert all(torch.equal(video, videos[0]) for video in videos)
    assert batch.videos.lengths.tolist() == [18] * 4
    assert not (tmp_path / "cache").exists()


def refused(environment: MllmEnvironment, *examples: Any) -> str:
    with pytest.raises(ValueError) as error:
        environment.encode(examples)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("cached", [False, True])
def test_what_cannot_be_read_is_named(qwen: Family, tmp_path: Path, clips: list[Path], cached: bool) -> None:
    environment = make(qwen, tmp_path / "cache" if cached else None)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(clips[0].read_bytes()[:200])
    (tmp_path / "bad.png").write_text("no image")
    assert f"{tmp_path / 'empty.mp4'}: the file is empty" in refused(environment, example(tmp_path / "empty.mp4", OPEN))
    assert str(tmp_path / "cut.mp4") in refused(environment, example(tmp_path / "cut.mp4", OPEN))
    assert str(tmp_path / "gone.mp4") in refused(environment, example(tmp_path / "gone.mp4", OPEN))
    image = {"image": str(tmp_path / "bad.png"), "questions": [OPEN]}
    assert str(tmp_path / "bad.png") in refused(environment, image)
    assert refused(environment) == "examples must not be empty"
    assert "example 7: must have a video, frames or an image" in refused(environment, {"id": "7", "questions": [OPEN]})
    frames = {"id": "7", "questions": [OPEN], "frames": torch.zeros(2, 3, 4, 4)}
    assert "example 7: frames must be [frames, height, width, 3]" in refused(environment, frames)
    assert "must have values from 0 to 1" in refused(environment, {**frames, "frames": torch.full((1, 4, 4, 3), 2.0)})
    assert "frames must be a tensor" in refused(environment, {**frames, "frames": torch.zeros(1, 4, 4, 3).int()})
    assert "must have questions" in refused(environment, example(clips[0]))


def test_questions_that_cannot_be_put(qwen: Family, clips: list[Path]) -> None:
    environment = make(qwen)
    inside = {**OPEN, "question": f"what is {PLACEHOLDER}?"}
    assert f"{clips[0]}: prompt must have one placeholder for a video, got 2" in refused(
        environment, example(clips[0], inside)
    )
    same = {"question": "?", "answer": "a", "options": ["a", chr(ord("a") + 70)]}  # one token for both
    assert "answers must each have tokens of their own" in refused(environment, example(clips[0], same))
    one = make(qwen, one_question=True)
    assert "must ask one question for a policy that sees it, got 2" in refused(one, example(clips[0], OPEN, WORDS))
    environment.processor.chat_template = None
    assert "must have a chat template" in refused(environment, example(clips[0], OPEN))
    environment.processor.chat_template = "{text}"
    assert "in the place of a placeholder" in refused(environment, example(clips[0], OPEN))


@pytest.mark.parametrize("name", ["num_frames", "max_pixels", "max_tokens_per_forward"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "8"])
def test_bad_numbers(qwen: Family, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{name} must be an integer of at least 1, got {value!r}"):
        make(qwen, **{name: value})


def test_other_bad_arguments(qwen: Family) -> None:
    with pytest.raises(ValueError, match="one_question must be true or false, got 1"):
        make(qwen, one_question=1)
    with pytest.raises(ValueError, match="cache_dir must be a path or None, got 3"):
        make(qwen, cache_dir=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="model must be one of"):
        MllmEnvironment(torch.nn.Linear(2, 2), TinyProcessor(qwen))


def test_a_placeholder_after_the_question(qwen: Family, clips: list[Path]) -> None:
    """Templates may put the video anywhere."""
    processor = TinyProcessor(qwen, "{text} {video} answer: ")
    environment = MllmEnvironment(qwen.model, processor, num_frames=FRAMES)
    batch = environment.encode([example(clips[0], OPEN)])
    inputs = processor_inputs(
        processor, read_clip(clips[0], FRAMES, MAX_PIXELS), chat_text(processor, OPEN["question"])
    )
    (question,) = batch.payload.questions[0]
    assert torch.equal(question.prompts[0].prompt.input_ids[0, :-2], inputs["input_ids"][0])
