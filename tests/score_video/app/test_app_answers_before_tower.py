"""Questions on the page behind a choice before the tower: two runs of the tower, two answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
from score_video.app.answers import SeenVideo
from score_video.app.decoding import Cut, sample
from score_video.app.encoded import Encoded
from score_video.app.gate import find_gate
from score_video.app.server import Server
from score_video.app.studio import Studio, find_source
from score_video.errors import ScoreError
from score_video.mllm.adapter import find_adapter
from score_video.mllm.compress import EncodedInputs
from score_video.mllm.conversation import chat_text, clip_of_video, model_inputs
from score_video.packed import Selection
from score_video.testing import save_tiny_model

HALO = {"qwen2_5_vl": 1, "qwen3_vl": 1, "internvl": 0}  # a dense tower sees whole frames


@pytest.fixture(scope="module", params=HALO)
def studio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = tmp_path_factory.mktemp("models") / request.param
    save_square_model(folder, "internvl") if request.param == "internvl" else save_tiny_model(folder, request.param)
    gate = find_gate("random:0.5", HALO[request.param], [])
    studio = Studio(source=find_source(None, str(folder), "cpu", gate=gate))
    yield studio
    studio.pages.shut()


def plainly(studio: Studio, *, gated: bool, question: str = QUESTION) -> EncodedInputs:
    """The clip and a question, through the processor and the tower, which sees what the gate lets through, or all."""
    model, processor = answering(studio)._model, answering(studio)._processor
    video = sample(studio.pages.examples[0].path, Cut(8, 224, 0))
    assert studio.source.gate is not None
    with torch.no_grad():
        inputs = model_inputs(model, processor, clip_of_video(video), chat_text(processor, question))
        layout = find_adapter(model).layout_of(len(video.frames))
        gate = studio.source.gate.gate if gated else None
        encoded = encode_inputs(model, inputs, visual_layout=layout, gate=gate)
    assert encoded is not None
    return encoded


def told(studio: Studio, encoded: Encoded) -> tuple[dict[str, str], dict[str, Any]]:
    """What was said, and the numbers, of both answers."""
    lines: list[dict[str, Any]] = []
    answering(studio).ask(encoded, studio.chosen("divprune"), 0.25, QUESTION, lines.append, max_new_tokens=12)
    done = {line["which"]: line["done"] for line in lines if "done" in line}
    assert [*done] == ["kept", "all"]
    return {
        which: "".join(line["text"] for line in lines if line["which"] == which and "text" in line) for which in done
    }, done


def test_the_clip_is_what_the_tower_saw(studio: Studio, encoded: Encoded) -> None:
    expected = plainly(studio, gated=True).visuals
    assert encoded.seen is not None and expected.seen is not None
    assert torch.equal(encoded.seen.kept.index, expected.seen.kept.index)
    assert torch.equal(encoded.seen.encoded, expected.seen.encoded)
    assert torch.equal(encoded.videos.tokens, expected.videos.tokens)
    assert encoded.facts()["seen"]["counts"] == [len(expected.seen.kept.index), len(expected.seen.encoded)]
    assert len(expected.seen.encoded) < len(expected.videos.tokens)
    for name in ("divprune", "evs"):
        index = encoded.chooser(studio.chosen(name)).at(0.25).index
        assert torch.equal(index, Compressor(name, 0.25).select_seen(expected.videos, expected.seen).index)


def test_both_answers(studio: Studio, encoded: Encoded) -> None:
    """From the kept tokens of a tower that saw a part, and from all of one that saw everything, and runs but once."""
    model = answering(studio)
    said, done = told(studio, encoded)
    runs = encoded.whole
    assert runs is not None
    gated, whole = plainly(studio, gated=True), plainly(studio, gated=False)
    everything = Selection(torch.arange(len(whole.visuals.videos.tokens)), whole.visuals.videos.lengths)
    for which, inputs in (
        ("kept", gated.compress(gated.select(Compressor("divprune", 0.25)))),
        ("all", whole.compress(everything)),
    ):
        output = model._model.generate(**inputs, max_new_tokens=12, do_sample=False)
        new = output[0, inputs.prompt_length :]
        assert said[which] == model._processor.tokenizer.decode(new, skip_special_tokens=True)
    once = {which: [bar["name"] for bar in one["bars"] if bar["once"]] for which, one in done.items()}
    assert once["kept"] == ["decode", "processor", "gate", "vision tower"]
    assert once["all"] == ["decode", "processor", "vision tower"]
    own = {which: [bar["name"] for bar in one["bars"] if not bar["once"]] for which, one in done.items()}
    assert own == {"kept": ["prompt", "compression", "prefill"], "all": ["prompt", "prefill"]}
    assert torch.equal(runs[0].encoded.visuals.videos.tokens, whole.visuals.videos.tokens)
    assert not torch.equal(runs[0].encoded.visuals.videos.tokens, encoded.videos.tokens)
    assert told(studio, encoded)[0] == said and encoded.whole is runs


def test_a_prompt_that_cannot_be_made_of_the_first(studio: Studio, encoded: Encoded) -> None:
    said, _ = told(studio, encoded)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SeenVideo, "asked", lambda self, ids: None)
        again, done = told(studio, encoded)
    assert again == said
    own = {which: [bar["name"] for bar in one["bars"] if not bar["once"]] for which, one in done.items()}
    assert own["kept"] == ["prompt", "processor", "gate", "vision tower", "compression", "prefill"]
    assert own["all"] == ["prompt", "processor", "vision tower", "prefill"]


def test_an_answer_that_nobody_waits_for_runs_no_tower(studio: Studio, encoded: Encoded) -> None:
    encoded.whole = None
    answering(studio).ask(encoded, studio.chosen("evs"), 0.25, QUESTION, lambda line: None, lambda: True)
    assert encoded.whole is None


def test_over_the_wire(studio: Studio, tmp_path: Path) -> None:
    client = TestClient(Server(studio).app, base_url="http://127.0.0.1")
    headers = {"score-page": client.post("/api/page", json={}).json()["page"]}
    request = {"clip": "example-bunny", "frames": 8, "size": 224, "patch": 28}
    asked = {**request, "compressor": "evs", "question": QUESTION}
    lines = client.post("/api/ask", json={**asked, "retention": 0.25}, headers=headers).text.splitlines()
    assert [json.loads(line)["which"] for line in lines if "done" in json.loads(line)] == ["kept", "all"]
    refused = client.post("/api/ask", json={**asked, "retention": 0.6}, headers=headers).json()["error"]
    assert refused == "retention must be above 0 and at most 0.5, got 0.6"
    # the Python that the page offers keeps the same
    body = {**request, "retention": 0.25, "compressors": ["evs"]}
    code = client.post("/api/export", json={**body, "kind": "python"}, headers=headers).text
    numbers = client.post("/api/export", json={**body, "kind": "numbers"}, headers=headers).json()
    (tmp_path / "big-buck-bunny.mp4").write_bytes(studio.pages.examples[0].path.read_bytes())
    assert json.loads(printed(code, tmp_path)[0].partition(" ")[2]) == numbers["compressors"][0]["index"]
    assert numbers["before_tower"]["retention"] == 0.5
    command = client.post("/api/export", json={**body, "kind": "command"}, headers=headers).text
    assert command.startswith("score ask big-buck-bunny.mp4 'What happens in this video?' --model ")
    assert f" --before-tower random:0.5 --halo {numbers['before_tower']['halo']} " in command


def test_a_halo_around_whole_frames_is_refused(tmp_path: Path) -> None:
    save_square_model(tmp_path / "model", "internvl")
    with pytest.raises(ScoreError, match="halo must be 0 for models of type 'internvl'"):
        find_source(None, str(tmp_path / "model"), "cpu", gate=find_gate("random:0.5", 1, []))
