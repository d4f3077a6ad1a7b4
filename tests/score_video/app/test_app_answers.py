"""Questions on the page: what a video MLLM answers there is what it answers elsewhere."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import QUESTION, answering
from helpers.saved_square_models import save_square_model
from running import printed

pytest.importorskip("starlette", reason="score-video[app] is not installed")
pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")
pytest.importorskip("torchvision", reason="processors of videos need torchvision")

from starlette.testclient import TestClient

from score_video import Compressor, encode_inputs
from score_video.app.answers import SeenVideo, cache_bytes_per_token
from score_video.app.decoding import Cut
from score_video.app.encoded import Encoded
from score_video.app.pages import BusyError
from score_video.app.server import Server
from score_video.app.studio import Studio, find_source
from score_video.commands.options import PRETRAINED_NAME
from score_video.errors import ScoreError
from score_video.mllm.adapter import find_adapter
from score_video.mllm.conversation import Clip, chat_ids, chat_text, processor_inputs
from score_video.packed import Selection
from score_video.testing import SavedFamily, save_tiny_model

FAMILIES: tuple[SavedFamily, ...] = ("qwen2_5_vl", "qwen3_vl")
SQUARE = ("llava_onevision", "internvl")


@pytest.fixture(scope="module", params=(*FAMILIES, *SQUARE))
def studio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("models") / request.param
    save_square_model(folder, request.param) if request.param in SQUARE else save_tiny_model(folder, request.param)
    studio = Studio(source=find_source(None, str(folder), "cpu"))
    yield studio
    studio.pages.shut()


def plainly(studio: Studio, encoded: Encoded, question: str) -> Any:
    """The clip and another question, through the processor and the vision tower."""
    model, processor = answering(studio)._model, answering(studio)._processor
    sampled = Cut(8, 224, 0)
    from score_video.app.decoding import sample

    video = sample(studio.pages.examples[0].path, sampled)
    clip = Clip(torch.from_numpy(video.frames), torch.from_numpy(video.timestamps), video.source.duration)
    with torch.no_grad():
        adapter = find_adapter(model)
        inputs = processor_inputs(processor, clip, chat_text(processor, question), adapter.processor_options)
        return encode_inputs(model, inputs, visual_layout=adapter.layout_of(len(video.frames)))


@pytest.mark.parametrize(
    "question", [QUESTION, "Why?", "What happens in this video? And then?", "What happens in this"]
)
def test_another_question_of_the_same_clip(question: str, studio: Studio, encoded: Encoded) -> None:
    """The prompt is that of the processor, though neither it nor the vision tower ran again; so is the answer."""
    processor = answering(studio)._processor
    expected = plainly(studio, encoded, question)
    seen = encoded.extra.asked(chat_ids(processor, chat_text(processor, question)))
    for name in ("input_ids", "attention_mask", "position_ids"):
        assert torch.equal(getattr(seen.encoded.prompt, name), getattr(expected.prompt, name)), name
    assert {name: values.tolist() for name, values in seen.encoded.prompt.carried.items()} == {
        name: values.tolist() for name, values in expected.prompt.carried.items()
    }
    assert torch.equal(seen.encoded.visuals.features.placeholders, expected.visuals.features.placeholders)
    assert torch.equal(seen.question(), expected.question())
    selected = Compressor("evs", retention=0.25).select(expected.visuals.videos)
    generate = partial(answering(studio)._model.generate, max_new_tokens=6, do_sample=False)
    assert torch.equal(generate(**seen.encoded.compress(selected)), generate(**expected.compress(selected)))
    again = seen.asked(encoded.extra.ids)  # and back
    assert torch.equal(again.encoded.prompt.position_ids, encoded.extra.encoded.prompt.position_ids)
    assert seen.asked(seen.ids) is seen


def test_the_stream_is_the_answer(studio: Studio, encoded: Encoded) -> None:
    model = answering(studio)
    lines: list[dict[str, Any]] = []
    model.ask(encoded, studio.chosen("evs"), 0.25, QUESTION, lines.append, max_new_tokens=12)
    expected = plainly(studio, encoded, QUESTION)
    videos = expected.visuals.videos
    everything = Selection(torch.arange(len(videos.tokens)), videos.lengths)
    for which, selected in (("kept", Compressor("evs", retention=0.25).select(videos)), ("all", everything)):
        inputs = expected.compress(selected)
        output = model._model.generate(**inputs, max_new_tokens=12, do_sample=False)
        new = output[0, inputs.prompt_length :]
        text = "".join(line["text"] for line in lines if line["which"] == which and "text" in line)
        assert text == model._processor.tokenizer.decode(new, skip_special_tokens=True)
        (done,) = [line["done"] for line in lines if line["which"] == which and "done" in line]
        assert done["visual"] == len(selected.index) and done["new"] == len(new)
        assert done["prompt"] == inputs["attention_mask"].shape[1]
        assert done["cacheBytes"] == done["prompt"] * 2 * 2 * 64 * 4  # keys and values, 2 layers, width 64, float32
        own = [bar["name"] for bar in done["bars"] if not bar["once"]]
        assert own == ["prompt", *(["compression"] if which == "kept" else []), "prefill"]
        assert all(bar["milliseconds"] >= 0 for bar in done["bars"])
    assert [line["which"] for line in lines if "done" in line] == ["kept", "all"]


def test_an_answer_that_nobody_waits_for_ends(studio: Studio, encoded: Encoded) -> None:
    lines: list[dict[str, Any]] = []
    answering(studio).ask(encoded, studio.chosen("evs"), 0.25, QUESTION, lines.append, lambda: True, max_new_tokens=200)
    assert [line["done"]["new"] for line in lines if "done" in line] == [1]


def test_over_the_wire(studio: Studio, tmp_path: Path) -> None:
    client = TestClient(Server(studio).app, base_url="http://127.0.0.1")
    offer = client.post("/api/page", json={}).json()
    assert offer["questions"] and offer["source"]["kind"] == "model"
    headers = {"score-page": offer["page"]}
    request = {"clip": "example-bunny", "frames": 8, "size": 224, "patch": 28}
    facts = client.post("/api/encode", json=request, headers=headers).json()
    assert facts["grid"][0] * facts["together"] == facts["frames"] == 8
    for name in (PRETRAINED_NAME, "divprune"):
        answer = client.post("/api/select", json={**request, "compressor": name, "retention": 0.25}, headers=headers)
        assert answer.json()["count"] == facts["grid"][0] * facts["grid"][1] * facts["grid"][2] // 4
    asked = {**request, "compressor": "evs", "retention": 0.25, "question": QUESTION}
    answer = client.post("/api/ask", json=asked, headers=headers)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["which"] for line in lines if "done" in line] == ["kept", "all"]
    for wrong, said in (
        ({"question": "  "}, "question must not be empty"),
        ({"question": "x" * 1001}, "question must have at most 1000 characters, got 1001"),
        ({"question": 3}, "question must be text, got 3"),
        ({"retention": 0}, "retention must be above 0"),
    ):
        assert said in client.post("/api/ask", json={**asked, **wrong}, headers=headers).json()["error"]
    # the Python that the page offers keeps the same
    body = {**request, "retention": 0.25, "compressors": ["evs"]}
    code = client.post("/api/export", json={**body, "kind": "python"}, headers=headers).text
    numbers = client.post("/api/export", json={**body, "kind": "numbers"}, headers=headers).json()
    (tmp_path / "big-buck-bunny.mp4").write_bytes(studio.pages.examples[0].path.read_bytes())
    assert json.loads(printed(code, tmp_path)[0].partition(" ")[2]) == numbers["compressors"][0]["index"]
    command = client.post("/api/export", json={**body, "kind": "command"}, headers=headers).text
    assert command.startswith("score ask big-buck-bunny.mp4 'What happens in this video?' --model ")


def test_questions_that_came_at_once_with_others_are_answered_or_refused(studio: Studio) -> None:
    """Not left without an end: the queue may fill between the look at it and the question's turn."""
    server = Server(studio)

    async def full(*given: Any) -> None:
        raise BusyError("too many are waiting")

    client = TestClient(server.app, base_url="http://127.0.0.1")
    headers = {"score-page": client.post("/api/page", json={}).json()["page"]}
    asked = {"clip": "example-bunny", "frames": 8, "size": 224, "patch": 28, "compressor": "evs", "retention": 0.25}
    assert client.post("/api/encode", json=asked, headers=headers).status_code == 200
    server._in_turn = full  # type: ignore[method-assign]
    said: list[str] = []
    body = {**asked, "question": QUESTION}
    asking = threading.Thread(
        target=lambda: said.append(client.post("/api/ask", json=body, headers=headers).text), daemon=True
    )
    asking.start()
    asking.join(20)
    assert [json.loads(line) for line in said] == [{"error": "too many are waiting"}]


def test_half_a_character_can_be_asked(studio: Studio, encoded: Encoded) -> None:
    """JSON can hold one; a tokenizer cannot."""
    lines: list[dict[str, Any]] = []
    question = answering(studio).check_question("Why \ud800?")
    answering(studio).ask(encoded, studio.chosen("evs"), 0.25, question, lines.append, max_new_tokens=1)
    assert [line["which"] for line in lines if "done" in line] == ["kept", "all"]


def test_no_questions_without_a_model() -> None:
    studio = Studio()
    client = TestClient(Server(studio).app, base_url="http://127.0.0.1")
    headers = {"score-page": client.post("/api/page", json={}).json()["page"]}
    assert "start with --model" in client.post("/api/ask", json={}, headers=headers).json()["error"]
    studio.pages.shut()
    with pytest.raises(ScoreError, match="give --tower or --model, not both"):
        find_source("a", "b")


def test_a_prompt_that_cannot_be_made_of_the_first_goes_the_whole_way(studio: Studio, encoded: Encoded) -> None:
    """A template that writes the question in front of the video, say: the answer is the same, and takes longer."""
    seen: SeenVideo = encoded.extra
    assert seen.asked(seen.ids.flip(0)) is None
    told: list[list[dict[str, Any]]] = []
    with pytest.MonkeyPatch.context() as patched:
        for whole in (False, True):
            if whole:
                patched.setattr(SeenVideo, "asked", lambda self, ids: None)
            told.append([])
            answering(studio).ask(encoded, studio.chosen("evs"), 0.25, QUESTION, told[-1].append, max_new_tokens=8)
    short, long = ([line for line in lines if "done" in line] for lines in told)
    texts = ["".join(line["text"] for line in lines if "text" in line) for lines in told]
    assert texts[0] == texts[1]
    own = [[bar["name"] for bar in lines[0]["done"]["bars"] if not bar["once"]] for lines in (short, long)]
    assert own == [
        ["prompt", "compression", "prefill"],
        ["prompt", "processor", "vision tower", "compression", "prefill"],
    ]


def test_memory_of_a_token(studio: Studio) -> None:
    assert cache_bytes_per_token(answering(studio)._model) == 2 * 2 * 64 * 4
