"""A choice before the tower on the page: what is shown and kept there is what the tower saw."""

from __future__ import annotations

import base64
import json
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.towers import save_other_tower, save_tower
from opened import SMALL, Page
from running import printed
from safetensors import safe_open

pytest.importorskip("starlette", reason="score-video[app] is not installed")
pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")

from starlette.testclient import TestClient

from score_video import Compressor, PackedVideos
from score_video.app import decoding
from score_video.app.choosing import Chooser
from score_video.app.decoding import Cut
from score_video.app.gate import PageGate, find_gate
from score_video.app.server import Server
from score_video.app.studio import Studio, find_compressors, find_source
from score_video.cli import main
from score_video.commands.options import PRETRAINED_NAME, chosen_by_options
from score_video.errors import ScoreError, ScoreWarning
from score_video.methods import METHODS, RandomMethod
from score_video.policy import pretrained_policy
from score_video.video.partial_tower import encode_seen
from score_video.video.tower import load_tower

OFFERED = [PRETRAINED_NAME, *(name for name in METHODS if name not in ("vidcom2", "evs-dithered"))]
BEFORE = Compressor("random", 0.5)


def gate_of(option: str = "random:0.5", halo: int = 1) -> PageGate:
    gate = find_gate(option, halo, [])
    assert gate is not None
    return gate


def rows(packed: str, length: int) -> list[int]:
    bits = np.frombuffer(base64.b64decode(packed), np.uint8)
    return np.flatnonzero(np.unpackbits(bits, bitorder="little")[:length]).tolist()


def ungated(name: str) -> Any:
    return chosen_by_options(None, None if name == PRETRAINED_NAME else name)


@pytest.mark.filterwarnings("ignore:the policy was not trained behind")
@pytest.mark.parametrize("name", OFFERED)
def test_what_is_kept_is_what_select_seen_keeps(name: str) -> None:
    """At any retention, in any order."""
    generator = torch.Generator().manual_seed(1)
    frame = torch.randn(1, 4, 5, 32, generator=generator)
    videos = PackedVideos.from_frames([frame + 0.3 * torch.randn(6, 4, 5, 32, generator=generator)])
    chosen, gate = ungated(name), gate_of()
    seen = gate.gate.choose(videos)
    chooser = Chooser(chosen, videos, seen=seen)
    for retention in (0.2, 0.05, 0.5, 0.1):
        gated = Compressor(chosen.compressor.method, retention, before_tower=BEFORE, halo=1)
        expected = gated.select_seen(videos, seen).index
        assert torch.equal(chooser.at(retention).index, expected), retention
        assert len(expected) == int(120 * retention) and torch.isin(expected, seen.kept.index).all()


def test_the_facts_of_a_patch() -> None:
    """Scores and ranks are of what was chosen before the tower; the others have none."""
    videos = PackedVideos.from_frames([torch.randn(3, 2, 2, 8, generator=torch.Generator().manual_seed(0))])
    seen = gate_of().gate.choose(videos)
    kept = seen.kept.index.tolist()
    norms = videos.tokens[kept].norm(dim=1)
    for name in ("norm", "evs", "divprune"):
        chooser = Chooser(ungated(name), videos, seen=seen)
        facts = {row: chooser.patch(row, 0.5) for row in range(12)}
        assert sorted(facts[row].rank or 0 for row in kept) == [1, 2, 3, 4, 5, 6]
        assert all(facts[row].rank is facts[row].score is None for row in facts if row not in kept)
        if name == "norm":
            assert [facts[row].score for row in kept] == pytest.approx(norms.tolist())


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tower(tmp_path_factory.mktemp("towers") / "dinov2")


@pytest.fixture(scope="module")
def studio(tower: Path) -> Iterator[Studio]:
    studio = Studio(source=find_source(str(tower), gate=gate_of("random:0.3")))
    yield studio
    studio.pages.shut()


@pytest.fixture
def page(studio: Studio) -> Iterator[Page]:
    page = Page(TestClient(Server(studio).app, base_url="http://127.0.0.1"))
    yield page
    page("leave", {"page": page.key})


def test_the_page_shows_what_the_tower_saw(page: Page, clip: Path, tower: Path) -> None:
    request = {"clip": page.upload(clip.read_bytes()).json()["clip"], **SMALL}
    facts = page("encode", request).json()
    compressor = Compressor("divprune", 0.1, before_tower=Compressor("random", 0.3), halo=1)
    assert compressor.gate is not None
    loaded = load_tower(str(tower))
    sampled = decoding.read(clip, Cut(**{**SMALL, "patch": 1}))
    tokens, seen = encode_seen(loaded, loaded.pixels(sampled.frames), compressor.gate)
    kept, encoded = seen.kept.index.tolist(), seen.encoded.tolist()
    assert facts["grid"] == [8, 4, 4]
    assert rows(facts["seen"]["kept"], 128) == kept and rows(facts["seen"]["encoded"], 128) == encoded
    assert facts["seen"]["counts"] == [38, len(encoded)] and 38 < len(encoded) < 128
    assert [*facts["milliseconds"]] == ["decode", "pixels", "gate", "tower"]
    surprise = np.frombuffer(base64.b64decode(facts["surprise"]), "<f4")
    assert (surprise[[row for row in range(128) if row not in kept]] == -1).all()  # nothing is known of these
    assert (surprise[[row for row in kept if row >= 16]] >= 0).all()
    answer = page("select", {**request, "compressor": "divprune", "retention": 0.1}).json()
    videos = PackedVideos.from_frames([tokens.view(8, 4, 4, -1)])
    assert rows(answer["kept"], 128) == compressor.select_seen(videos, seen).index.tolist()
    most = page("select", {**request, "compressor": "norm", "retention": 0.3}).json()
    assert rows(most["kept"], 128) == kept
    refused = page("select", {**request, "compressor": "norm", "retention": 0.35}).json()["error"]
    assert refused == "retention must be above 0 and at most 0.3, got 0.35"


def test_a_tower_takes_frames_of_any_size(studio: Studio) -> None:
    """Its own size decides how many tokens there are, not that of the frames."""
    assert studio.cut(128, 896, 28) == Cut(128, 896, 1)


def test_the_page_offers_what_can_stand_there(page: Page) -> None:
    assert page.offer["compressors"] == OFFERED
    assert page.offer["gate"] == {"name": "random", "retention": 0.3, "halo": 1}
    assert [*page.offer["refused"]] == ["evs-dithered", "vidcom2"]
    assert all("it goes by where tokens are" in reason for reason in page.offer["refused"].values())
    assert page.offer["notes"] == {}
    request = {"clip": "example-bunny", **SMALL, "compressor": "vidcom2", "retention": 0.1}
    assert page("select", request).json()["error"] == "there is no compressor 'vidcom2' here"


def test_policies_behind_the_gate(tmp_path: Path, tower: Path, clip: Path) -> None:
    """One that was not trained there has a note; that of the package is another one there, as everywhere else."""
    whole = str(tmp_path / "whole")
    pretrained_policy().save_pretrained(whole)
    studio = Studio(find_compressors([whole]), find_source(str(tower), gate=gate_of("random:0.3")))
    page = Page(TestClient(Server(studio).app, base_url="http://127.0.0.1"))
    assert [*page.offer["notes"]] == [whole] and "not trained behind" in page.offer["notes"][whole]
    request = {"clip": page.upload(clip.read_bytes()).json()["clip"], **SMALL, "retention": 0.1}
    page("encode", {name: request[name] for name in ("clip", *SMALL)})
    kept = {
        name: rows(page("select", {**request, "compressor": name}).json()["kept"], 128)
        for name in (PRETRAINED_NAME, whole)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ScoreWarning)
        before = Compressor("random", 0.3)
        expected = {
            PRETRAINED_NAME: Compressor(retention=0.1, before_tower=before, halo=1),
            whole: Compressor(pretrained_policy(), 0.1, before_tower=before, halo=1),
        }
    loaded, gate = load_tower(str(tower)), expected[whole].gate
    assert gate is not None
    sampled = decoding.read(clip, Cut(**{**SMALL, "patch": 1}))
    tokens, seen = encode_seen(loaded, loaded.pixels(sampled.frames), gate)
    videos = PackedVideos.from_frames([tokens.view(8, 4, 4, -1)])
    for name, compressor in expected.items():
        assert kept[name] == compressor.select_seen(videos, seen).index.tolist(), name
    assert kept[PRETRAINED_NAME] != kept[whole]
    studio.pages.shut()


def test_without_a_gate_nothing_is_refused_or_noted() -> None:
    studio = Studio()
    offer = studio.offer()
    studio.pages.shut()
    assert (offer["gate"], offer["refused"], offer["notes"]) == (None, {}, {}) and "vidcom2" in offer["compressors"]


def test_exports_do_the_same(page: Page, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = {"clip": page.upload(clip.read_bytes(), "clip.mp4").json()["clip"], **SMALL}
    asked = {**request, "retention": 0.25, "compressors": ["divprune", "norm"]}
    numbers = page("export", {**asked, "kind": "numbers"}).json()
    index = {one["name"]: one["index"] for one in numbers["compressors"]}
    encoded = numbers["before_tower"].pop("encoded")
    assert numbers["before_tower"] == {"method": "random", "retention": 0.3, "halo": 1, "kept": 38} and encoded > 38
    (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
    code = page("export", {**asked, "kind": "python"}).text
    lines = printed(code, tmp_path)
    assert {name: json.loads(kept) for name, _, kept in (line.partition(" ") for line in lines)} == index
    command = page("export", {**asked, "kind": "command"}).text
    assert " --before-tower random:0.3 --halo 1 " in command
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == 0
    with safe_open(tmp_path / "clip-score" / "tokens.safetensors", "pt") as kept:
        assert kept.get_tensor("index").tolist() == index["divprune"]
        assert kept.get_tensor("compared.1.index").tolist() == index["norm"]
    assert json.loads((tmp_path / "clip-score" / "summary.json").read_text())["before_tower"]["encoded"] == encoded
    assert page("export", {**asked, "kind": "picture"}).content[:4] == b"\x89PNG"


def test_a_saved_gate_is_that_of_the_page(tmp_path: Path, tower: Path, clip: Path) -> None:
    saved = Compressor("norm", 0.1, before_tower=Compressor(RandomMethod(), 0.3), halo=1)
    saved.save_pretrained(tmp_path / "saved")
    given = find_compressors([str(tmp_path / "saved"), "divprune"])
    gate = find_gate(None, None, given)
    assert gate is not None and gate.options == ["--before-tower", "random:0.3", "--halo", "1"]
    studio = Studio(given, find_source(str(tower), gate=gate))
    try:
        page = Page(TestClient(Server(studio).app, base_url="http://127.0.0.1"))
        request = {"clip": page.upload(clip.read_bytes(), "clip.mp4").json()["clip"], **SMALL}
        asked = {**request, "retention": 0.2, "compressors": page.offer["first"]}
        index = [one["index"] for one in page("export", {**asked, "kind": "numbers"}).json()["compressors"]]
        (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
        lines = printed(page("export", {**asked, "kind": "python"}).text, tmp_path)
    finally:
        studio.pages.shut()
    assert [json.loads(line[line.rindex("[") :]) for line in lines] == index
    assert [len(kept) for kept in index] == [25, 25]
    other = find_gate("norm:0.4", None, given)  # goes before what is saved
    assert other is not None and other.options == ["--before-tower", "norm:0.4", "--halo", "0"]


def test_refusals(tmp_path: Path, tower: Path) -> None:
    for name, before in (("one", Compressor("norm", 0.4)), ("two", Compressor("norm", 0.5))):
        Compressor("evs", before_tower=before).save_pretrained(tmp_path / name)
    Compressor("evs", before_tower=Compressor(RandomMethod(3), 0.5)).save_pretrained(tmp_path / "nameless")
    one, two, nameless = find_compressors([str(tmp_path / name) for name in ("one", "two", "nameless")])
    for option, halo, given, said in (
        (None, 1, [], "halo must be 0 without before_tower, got 1"),
        ("norm", 0, [], "--before-tower must be NAME:RETENTION"),
        ("norm:0.005", 0, [], "--before-tower must let at least 0.01 through on the page, got 0.005"),
        (None, None, [one, two], "choose otherwise before the tower: give --before-tower for all of them"),
        (None, None, [nameless], "what it has before the tower is no rule that --before-tower could name"),
    ):
        with pytest.raises(ScoreError, match=said):
            find_gate(option, halo, given)
    with pytest.raises(ScoreError, match=r"--before-tower random needs --tower or --model: .* raw pixels"):
        find_source(None, gate=gate_of())
    with pytest.raises(ScoreError, match=r"tower must be DINOv2 to be run in part, .* is 'vit'"):
        find_source(str(save_other_tower(tmp_path / "vit")), gate=gate_of())
    with pytest.raises(ScoreError, match="method must not be 'vidcom2' behind before_tower"):
        Studio(find_compressors(["vidcom2"]), find_source(str(tower), gate=gate_of()))


def test_the_command_says_why_pixels_have_no_gate(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", "--port", "0", "--before-tower", "evs-dithered:0.3"]) == 2
    assert capsys.readouterr().err == (
        "score: error: --before-tower evs-dithered needs --tower or --model: without one tokens are raw pixels, which "
        "cost nothing that could be saved\n"
    )
