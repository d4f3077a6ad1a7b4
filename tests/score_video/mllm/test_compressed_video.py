"""A video that is compressed once and asked many times: from memory, from disk, and on kept keys and values."""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from masked import TOLERANCE, difference
from safetensors.torch import load_file, save_file
from tiny import TEXT_IDS
from tiny_families import ALL
from tiny_processor import TinyProcessor
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from score_video.compressor import Compressor
from score_video.errors import ScoreError
from score_video.methods import RandomMethod
from score_video.mllm import compress_inputs
from score_video.mllm.adapter import find_adapter
from score_video.mllm.compressed_video import CompressedVideo, compress_video
from score_video.mllm.conversation import Clip, chat_text, processor_inputs
from score_video.mllm.environment.feature_cache import read_tensors, write_tensors
from score_video.mllm.video_session import VideoSession
from score_video.policy import SurprisePolicy, SurprisePolicyConfig

pytestmark = pytest.mark.usefixtures("without_gradients")

THIRD = Compressor(RandomMethod(3), 0.3)
QUESTIONS = ("what?", "how many cats are there?", "A or B")

FAMILIES = ALL

made = functools.cache(lambda name: FAMILIES[name]())
every = pytest.mark.parametrize("name", FAMILIES)


def clip(frames: int = 4) -> Clip:
    generator = torch.Generator().manual_seed(frames)
    pixels = torch.randint(256, (frames, 8, 8, 3), generator=generator, dtype=torch.uint8)
    return Clip(pixels, torch.arange(frames, dtype=torch.float64) / 2, frames / 2)


@functools.cache
def compressed(name: str) -> tuple[Any, Any, CompressedVideo]:
    family = made(name)
    processor = TinyProcessor(family)
    return family.model, processor, compress_video(family.model, processor, clip(), THIRD, about={"video": "a.mp4"})


def generated(model: Any, inputs: Any, tokens: int = 4) -> tuple[Tensor, Tensor]:
    """Logits [tokens, vocabulary] and the new ids."""
    options = {"max_new_tokens": tokens, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    output = model.generate(**inputs, **options)
    return torch.cat(output.logits), output.sequences[0, -tokens:]


@every
def test_as_if_compressed_for_the_question(name: str) -> None:
    model, processor, video = compressed(name)
    told = {"visual_layout": [[("video", 4)]]} if find_adapter(model).mixes_pictures else {}
    if model.config.model_type in ("kimi_k25", "minimax_m3_vl"):
        told = {}  # their chunks follow each other
    for question in QUESTIONS:
        inputs = processor_inputs(processor, clip(), chat_text(processor, question))
        wanted, ids = generated(model, compress_inputs(model, inputs, THIRD, **told))
        ours, answer = generated(model, video.inputs(model, processor, question))
        assert difference(ours, wanted) <= TOLERANCE and torch.equal(answer, ids)


@every
def test_written_and_read(name: str, tmp_path: Path) -> None:
    model, processor, video = compressed(name)
    video.save(tmp_path / "video.safetensors")
    again = CompressedVideo.load(tmp_path / "video.safetensors", model, processor)
    assert torch.equal(again.index, video.index) and torch.equal(again.seconds, video.seconds)
    assert again.about == video.about and again.about["video"] == "a.mp4"
    assert again.num_tokens == video.num_tokens and again.grid == video.grid
    assert len(again.encoded.features.rows) == len(video.index) == int(video.num_tokens * 0.3)
    ours, wanted = (generated(model, one.inputs(model, processor, "what?"))[0] for one in (again, video))
    assert torch.equal(ours, wanted)
    assert [file.name for file in tmp_path.iterdir()] == ["video.safetensors"]


class Listening(BaseStreamer):
    def __init__(self) -> None:
        self.heard: list[Tensor] = []

    def put(self, value: Tensor) -> None:
        self.heard.append(value.flatten())

    def end(self) -> None:
        pass


@every
def test_a_session(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each answer is that of the question alone, whatever was asked before; only the question's tokens are read."""
    model, processor, video = compressed(name)
    session = VideoSession(model, processor, video)
    read: list[int] = []
    hook = model.get_decoder().register_forward_pre_hook(
        lambda module, args, kwargs: read.append(kwargs["inputs_embeds"].shape[1]), with_kwargs=True
    )
    try:
        for question in (*QUESTIONS, QUESTIONS[0]):
            read.clear()
            streamer = Listening()
            answer = session.ask(question, max_new_tokens=4, streamer=streamer)
            steps = list(read)
            _, ids = generated(model, video.inputs(model, processor, question))
            assert torch.equal(torch.cat(streamer.heard)[-4:], ids)
            assert answer.new_tokens == 4 and answer.visual_tokens == len(video.index)
            first = ["video"] if question == QUESTIONS[0] and len(steps) == 5 else []
            assert list(answer.milliseconds) == ["prompt", *first, "prefill"]
            assert sum(steps) == answer.prompt_tokens + 3 if first else steps[0] < len(question) + 16
    finally:
        hook.remove()
    assert len(steps) == 4 and steps[1:] == [1, 1, 1]


@every
def test_logits_of_a_session(name: str) -> None:
    model, processor, video = compressed(name)
    session = VideoSession(model, processor, video)
    original, seen = model.generate, []

    def generate(**given: Any) -> Any:
        output = original(**given, output_logits=True, return_dict_in_generate=True)
        seen.append(torch.cat(output.logits))
        return output.sequences

    model.generate = generate
    try:
        for question in QUESTIONS:
            session.ask(question, max_new_tokens=4)
    finally:
        del model.generate
    for question, ours in zip(QUESTIONS, seen, strict=True):
        wanted, _ = generated(model, video.inputs(model, processor, question))
        assert difference(ours, wanted) <= 1e-5


def test_long_videos_in_a_session() -> None:
    """Their last frame is later than the text behind them, which the model must be told for each question anew."""
    for name in ("qwen2_5_vl", "qwen2_vl"):
        model, processor = made(name).model, TinyProcessor(made(name))
        video = compress_video(model, processor, clip(40), THIRD)
        session = VideoSession(model, processor, video)
        for question in QUESTIONS:
            inputs = video.inputs(model, processor, question)
            wanted = generated(model, inputs, 6)[1]
            streamer = Listening()
            session.ask(question, max_new_tokens=6, streamer=streamer)
            assert torch.equal(torch.cat(streamer.heard)[-6:], wanted)


# --- refused


def test_another_model(tmp_path: Path) -> None:
    model, processor, video = compressed("qwen2_5_vl")
    path = tmp_path / "video.safetensors"
    video.save(path)
    other = copy.deepcopy(model)
    other.lm_head.weight.data += 1
    with pytest.raises(ScoreError, match=r"must be of the model it is asked with: .*qwen2_5_vl.* other weights"):
        CompressedVideo.load(path, other, processor)
    with pytest.raises(ScoreError, match=r"was made with .*\(qwen2_5_vl, .*and this is .*\(qwen3_vl, "):
        CompressedVideo.load(path, made("qwen3_vl").model, TinyProcessor(made("qwen3_vl")))


def test_another_processor(tmp_path: Path) -> None:
    model, processor, video = compressed("qwen2_5_vl")
    video.save(tmp_path / "video.safetensors")
    other = TinyProcessor(made("qwen2_5_vl"), "ask: {video}{text} ")
    with pytest.raises(ScoreError, match=r"must be of the processor it is asked with.*chat template"):
        CompressedVideo.load(tmp_path / "video.safetensors", model, other)
    del processor


def test_files_that_are_none(tmp_path: Path) -> None:
    model, processor, video = compressed("qwen2_5_vl")
    path = tmp_path / "video.safetensors"
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        CompressedVideo.load(path, model, processor)
    path.write_bytes(b"nothing")
    with pytest.raises(ScoreError, match="is no compressed video, or is damaged"):
        CompressedVideo.load(path, model, processor)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ScoreError, match="is no compressed video, or is damaged: its content is not what was written"):
        CompressedVideo.load(path, model, processor)
    video.save(path)
    whole = path.read_bytes()
    for place in (-3, *(whole.index(word) for word in (b"about", b"model_hash", b"versions", b"sha256"))):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ScoreError, match="is damaged"):
            CompressedVideo.load(path, model, processor)
    path.write_bytes(whole)
    tensors, metadata = read_tensors(path)
    for lacking in ("about", "index", "geometry", "features.rows"):
        write_tensors(
            path,
            {name: tensor for name, tensor in tensors.items() if name != lacking},
            {name: text for name, text in metadata.items() if name != lacking},
        )
        with pytest.raises(ScoreError, match=f"is no compressed video of this package: KeyError.'{lacking}'"):
            CompressedVideo.load(path, model, processor)


def test_a_selector_that_looks_at_the_question() -> None:
    model, processor, _ = compressed("qwen2_5_vl")
    policy = SurprisePolicy(SurprisePolicyConfig(token_width=32, hidden_sizes=[8], question_width=32))
    with pytest.raises(ScoreError, match="selector must not look at the question"):
        compress_video(model, processor, clip(), Compressor(policy))


def test_questions_that_cannot_be_asked() -> None:
    model, processor, video = compressed("qwen2_5_vl")
    session = VideoSession(model, processor, video)
    for ask in (session.ask, lambda question: video.inputs(model, processor, question)):
        with pytest.raises(ScoreError, match="question must not be empty"):
            ask(" ")
    with pytest.raises(ScoreError, match="max_new_tokens must be at least 1, got 0"):
        session.ask("what?", max_new_tokens=0)


def test_a_template_with_the_question_in_front() -> None:
    processor = TinyProcessor(made("qwen2_5_vl"), "user: {text}{video} assistant: ")
    model = made("qwen2_5_vl").model
    session = VideoSession(model, processor, compress_video(model, processor, clip(), THIRD))
    session.ask("what?")
    with pytest.raises(ScoreError, match="chat template that writes the question behind the video"):
        session.ask("how?")


def test_what_is_in_a_file(tmp_path: Path) -> None:
    """Kept rows alone: the file is as small as what is kept."""
    _, _, video = compressed("qwen3_vl")
    video.save(tmp_path / "video.safetensors")
    tensors = load_file(tmp_path / "video.safetensors")
    assert len(tensors["features.rows"]) == len(tensors["features.deepstack.0"]) == len(tensors["index"])
    assert int(tensors["features.placeholders"].sum()) == video.num_tokens
    assert tensors["seconds"].tolist() == [0, 0.5, 1, 1.5]
    assert not any(token in TEXT_IDS for token in tensors["placeholder"].tolist())
