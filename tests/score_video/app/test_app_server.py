"""What the page's server answers, and what it refuses: without a browser."""

from __future__ import annotations

import base64
import json
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.towers import save_tower
from opened import EXAMPLE, SMALL, Page
from running import printed
from safetensors import safe_open

pytest.importorskip("starlette", reason="score-video[app] is not installed")
pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")

from starlette.testclient import TestClient

from score_video import Compressor, PackedVideos
from score_video.app import decoding, pages
from score_video.app.choosing import Chooser
from score_video.app.decoding import Cut
from score_video.app.encoded import Shelf
from score_video.app.exports import command_line
from score_video.app.server import Server
from score_video.app.studio import Studio, find_compressors, find_source
from score_video.cli import main
from score_video.commands.options import PRETRAINED_NAME, chosen_by_options
from score_video.errors import ScoreError
from score_video.methods import METHODS


def kept_rows(answer: dict[str, Any], length: int) -> list[int]:
    packed = np.frombuffer(base64.b64decode(answer["kept"]), np.uint8)
    return np.flatnonzero(np.unpackbits(packed, bitorder="little")[:length]).tolist()


@pytest.mark.parametrize("name", [PRETRAINED_NAME, *METHODS])
def test_what_is_kept_is_what_the_compressor_keeps(name: str) -> None:
    """At any retention, in any order: what is found once is not found for one retention alone."""
    generator = torch.Generator().manual_seed(1)
    frame = torch.randn(1, 4, 5, 32, generator=generator)
    videos = PackedVideos.from_frames([frame + 0.3 * torch.randn(6, 4, 5, 32, generator=generator)])
    chosen = chosen_by_options(None, None if name == PRETRAINED_NAME else name)
    chooser = Chooser(chosen, videos)
    for retention in (0.2, 0.05, 0.5, 0.1, 1.0):
        expected = Compressor(chosen.compressor.method, retention=retention).select(videos).index
        assert torch.equal(chooser.at(retention).index, expected), retention


def test_the_facts_of_a_patch() -> None:
    videos = PackedVideos.from_frames([torch.randn(3, 2, 2, 8, generator=torch.Generator().manual_seed(0))])
    chooser = Chooser(chosen_by_options(None, "norm"), videos)
    norms = videos.tokens.norm(dim=1)
    facts = [chooser.patch(row, 0.5) for row in range(12)]
    assert [fact.score for fact in facts] == pytest.approx(norms.tolist())
    assert [fact.rank for fact in facts] == (norms.argsort(descending=True).argsort() + 1).tolist()
    # what is kept at a third are the first four
    assert {row for row, fact in enumerate(facts) if fact.rank and fact.rank <= 4} == set(
        chooser.at(1 / 3).index.tolist()
    )
    diverse = Chooser(chosen_by_options(None, "divprune"), videos)
    ranks = [diverse.patch(row, 0.5).rank for row in range(12)]
    assert sorted(rank for rank in ranks if rank) == list(range(1, 7))
    assert Chooser(chosen_by_options(None, "random"), videos).patch(0, 0.5).rank is None
    with pytest.raises(ScoreError, match="row must be 0 to 11, got 12"):
        chooser.patch(12, 0.5)


def test_a_page_from_the_first_request_to_the_last(page: Page, studio: Studio) -> None:
    facts = page("encode", EXAMPLE).json()
    assert facts["grid"] == [8, 2, 4] and facts["frames"] == 8
    surprise = np.frombuffer(base64.b64decode(facts["surprise"]), "<f4")
    assert (surprise[:8] == -1).all() and (surprise[8:] >= 0).all()
    assert page("sprite", EXAMPLE).content[:2] == b"\xff\xd8"
    answer = page("select", {**EXAMPLE, "compressor": "evs", "retention": 0.25}).json()
    encoded = studio.shelf.get(("example-bunny", Cut(8, 112, 28)))
    assert encoded is not None
    expected = Compressor("evs", retention=0.25).select(encoded.videos).index.tolist()
    assert kept_rows(answer, 64) == expected and answer["count"] == len(expected) == 16
    asked = {**EXAMPLE, "retention": 0.25, "compressors": ["evs", PRETRAINED_NAME]}
    evs, policy = page("patch", {**asked, "row": 3}).json()["facts"]
    assert evs["score"] == "before all others" and 1 <= policy["rank"] <= 64


def test_exports_do_the_same(page: Page, tmp_path: Path, studio: Studio) -> None:
    """The command line and the Python keep the tokens that the page shows."""
    page("encode", EXAMPLE)
    asked = {**EXAMPLE, "retention": 0.25, "compressors": ["evs", "uniform", PRETRAINED_NAME]}
    numbers = page("export", {**asked, "kind": "numbers"}).json()
    index = {one["name"]: one["index"] for one in numbers["compressors"]}
    assert {name: len(rows) for name, rows in index.items()} == {"evs": 16, "uniform": 16, PRETRAINED_NAME: 16}
    assert sum(numbers["compressors"][0]["kept_per_frame"]) == 16
    (tmp_path / "big-buck-bunny.mp4").write_bytes(studio.pages.examples[0].path.read_bytes())
    code = page("export", {**asked, "kind": "python"}).text
    for line in printed(code, tmp_path):
        name, _, rows = line.partition(" [")
        assert json.loads(f"[{rows}") == index.pop(name)
    assert not index
    command = page("export", {**asked, "compressors": ["evs"], "kind": "command"}).text
    assert command == (
        "score compress big-buck-bunny.mp4 --method evs --retention 0.25 --frames 8 --size 112 --patch 28\n"
    )
    command = page("export", {**asked, "kind": "command"}).text
    assert command.startswith(
        "score compress big-buck-bunny.mp4 --method evs --method uniform --method pretrained --retention 0.25 "
    )
    assert command.count("\n") == 1
    command = page("export", {**asked, "compressors": ["evs", "evs"], "kind": "command"}).text  # shown twice
    assert command.startswith("score compress big-buck-bunny.mp4 --method evs --retention 0.25 ")
    assert page("export", {**asked, "kind": "picture"}).content[:4] == b"\x89PNG"
    overlay = page("export", {**asked, "kind": "overlay"})
    assert overlay.content[4:8] == b"ftyp" and overlay.headers["score-name"] == "overlay.mp4"
    assert "kind must be" in page("export", {**asked, "kind": "shell"}).json()["error"]


def test_an_upload_is_read_and_deleted_with_its_page(client: TestClient, studio: Studio, clip: Path) -> None:
    page = Page(client)
    uploaded = page.upload(clip.read_bytes(), "../../etc/holiday%20clip.mp4").json()
    assert uploaded["name"] == "holiday clip.mp4"
    files = [path for path in studio.pages.folder.iterdir() if not path.name.startswith("example")]
    assert len(files) == 1 and files[0].stat().st_mode & 0o77 == 0 and studio.pages.folder.stat().st_mode & 0o77 == 0
    request = {"clip": uploaded["clip"], **SMALL}
    assert page("encode", request).json()["grid"] == [8, 3, 4]
    page("leave", {"page": page.key})
    assert not files[0].exists()
    assert page("encode", request).status_code == 404
    assert studio.shelf.get((uploaded["clip"], Cut(**SMALL))) is None


def test_pages_that_nobody_uses_are_put_away(client: TestClient, studio: Studio, clip: Path, monkeypatch: Any) -> None:
    page = Page(client)
    page.upload(clip.read_bytes())
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + pages.IDLE_SECONDS + 1)
    studio.pages.sweep()
    monkeypatch.undo()
    assert all(path.name.startswith("example") for path in studio.pages.folder.iterdir())
    assert "put away" in page.upload(clip.read_bytes()).json()["error"]


def test_sizes_are_limited(page: Page, clip: Path, studio: Studio) -> None:
    before = set(studio.pages.folder.iterdir())
    answer = page.upload(bytes(200_001))
    assert answer.status_code == 413 and "larger than" in answer.json()["error"]
    assert page.upload(b"").json()["error"] == "the file is empty"
    assert set(studio.pages.folder.iterdir()) == before
    for wrong, said in (
        ({"frames": 0}, "frames must be 1 to 128"),
        ({"frames": 10**9}, "frames must be 1 to 128"),
        ({"size": 5000}, "size must be 112 to 896"),
        ({"patch": 1}, "patch must be 8 to 56"),
        ({"frames": 128, "size": 896}, "tokens, more than 32,768"),
        ({"frames": "8"}, "frames must be a whole number, got '8'"),
        ({"frames": True}, "frames must be a whole number, got True"),
    ):
        assert said in page("encode", {**EXAMPLE, **wrong}).json()["error"], wrong
    for wrong_retention in (0, -1, 1.5, "x", None, float("nan")):
        body = json.dumps({**EXAMPLE, "compressor": "evs", "retention": wrong_retention})
        answer = page.client.post("/api/select", content=body, headers={"score-page": page.key})
        assert "retention must be above 0" in answer.json()["error"]
    assert "no compressor" in page("select", {**EXAMPLE, "compressor": "os:system", "retention": 0.1}).json()["error"]
    for body in (b"{", b"[1]", b"\xff", b"[" * 50_000):
        answer = page.client.post("/api/encode", content=body, headers={"score-page": page.key})
        assert answer.json()["error"] == "the request must be a JSON object"
    assert page("leave", {"page": "x" * 100_000}).status_code == 413


def test_a_page_keeps_its_latest_clips(page: Page, clip: Path) -> None:
    keys = [page.upload(clip.read_bytes()).json()["clip"] for _ in range(pages.MAX_CLIPS + 1)]
    assert page("encode", {"clip": keys[0], **SMALL}).status_code == 404
    assert page("encode", {"clip": keys[1], **SMALL}).status_code == 200


def test_no_more_pages_than_there_is_room_for(client: TestClient) -> None:
    opened = []
    while (answer := client.post("/api/page", json={})).status_code == 200:
        opened.append(answer.json()["page"])
    assert answer.status_code == 503 and len(opened) <= pages.MAX_PAGES
    for key in opened:
        client.post("/api/leave", json={"page": key})
    assert client.post("/api/page", json={}).status_code == 200


def test_long_clips_and_long_queues_are_refused(page: Page, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = {"clip": page.upload(clip.read_bytes()).json()["clip"], **SMALL}
    with monkeypatch.context() as patched:
        patched.setattr("score_video.app.studio.MAX_SECONDS", 2.0)
        assert "minutes long: take one of at most" in page("encode", request).json()["error"]
    monkeypatch.setattr("score_video.app.server.WAITING", 0)
    answer = page("encode", request)
    assert answer.status_code == 503 and answer.json()["error"] == "too many are waiting: try again in a minute"


def test_what_is_there_waits_for_nobody(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty visitors who open the page at once: the clip that they see first is encoded already."""
    assert page("encode", EXAMPLE).status_code == 200
    monkeypatch.setattr("score_video.app.server.WAITING", 0)
    assert page("encode", EXAMPLE).status_code == 200


def test_a_clip_whose_page_is_closed_while_it_is_read(client: TestClient, studio: Studio, clip: Path) -> None:
    page = Page(client)
    found = studio.pages.clip(page.key, page.upload(clip.read_bytes()).json()["clip"])
    read = decoding.read

    def slowly(path: Path, cut: Cut) -> Any:
        sampled = read(path, cut)
        studio.pages.close(page.key)
        return sampled

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decoding, "read", slowly)
        studio.encode(found, Cut(**SMALL))
    assert studio.shelf.get((found.key, Cut(**SMALL))) is None


def test_the_shelf_puts_away_what_was_not_used_for_the_longest(studio: Studio) -> None:
    encoded = studio.encode(studio.pages.examples[0], Cut(**SMALL))
    shelf = Shelf(capacity=2 * (encoded.videos.tokens.nbytes + encoded.sampled.frames.nbytes))
    for key in ("a", "b"):
        shelf.put(key, encoded)
    assert shelf.get("a") is not None
    shelf.put("c", encoded)
    assert [key for key in "abc" if shelf.get(key) is not None] == ["a", "c"]


def test_the_page_asks_nobody_else_for_anything() -> None:
    static = Path(pages.__file__).parent / "static"
    for path in static.iterdir():
        if path.suffix in (".html", ".css", ".js"):
            text = path.read_text(encoding="utf-8")
            assert "http://" not in text and "https://" not in text and "url(" not in text, path.name


def test_compressors_by_name(tmp_path: Path, studio: Studio) -> None:
    chosen_by_options(None, "evs", retention=0.3).compressor.save_pretrained(tmp_path / "saved")
    found = find_compressors(["pretrained", str(tmp_path / "saved"), "divprune"])
    encoded = studio.encode(studio.pages.examples[0], Cut(**SMALL))
    lines = command_line(encoded, found[:2], 0.1, studio.source).splitlines()
    assert [line.rsplit(" --out ")[1] for line in lines] == ["kept-1", "kept-2"] and " --policy " in lines[1]
    assert [one.name for one in found] == [PRETRAINED_NAME, str(tmp_path / "saved"), "divprune"]
    with pytest.raises(ScoreError, match="twice"):
        find_compressors(["evs", "evs"])
    with pytest.raises((ScoreError, OSError)):
        find_compressors(["no-such-thing"])


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "score_video.cli", "app", "--host", "0.0.0.0"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ran.returncode == 2 and ran.stderr.count("\n") == 1 and "--share-password" in ran.stderr


def test_a_port_that_is_taken_is_said_before_anything_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["app", "--port", str(port), "--tower", "no/such-tower"]) == 2
    assert capsys.readouterr().err == f"score: error: --host 127.0.0.1 --port {port}: Address already in use\n"


def test_a_tower_of_many_tokens_begins_with_fewer_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,369 of a frame: 23 frames are within what a clip may have, and nothing is run for more."""
    studio = Studio(source=find_source(str(save_tower(tmp_path / "tower", side=37))))
    assert studio.first_cut == Cut(16, 448, 1)
    assert studio.cut(23, 448, 28) == Cut(23, 448, 1)
    offer = studio.offer()
    assert (offer["frames"], offer["mostFrames"]) == (16, 23)
    message = "frames must be 23 at most, got 24: more would be above 32,768 tokens of .*tower"
    with pytest.raises(ScoreError, match=message):
        studio.cut(24, 448, 28)
    studio.pages.shut()
    monkeypatch.setattr("score_video.app.studio.MAX_TOKENS", 1_000)
    with pytest.raises(ScoreError, match=r"tower must make 1,000 tokens of a frame at most, .*tower makes 1,369"):
        find_source(str(tmp_path / "tower"))


def test_a_tower(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is chosen from is what the tower sees; the Python and the command line that are offered see the same."""
    folder = save_tower(tmp_path / "tower")
    studio = Studio(source=find_source(str(folder)))
    try:
        page = Page(TestClient(Server(studio).app, base_url="http://127.0.0.1"))
        assert page.offer["source"] == {"kind": "tower", "name": str(folder)}
        uploaded = page.upload(clip.read_bytes(), "clip.mp4").json()["clip"]
        request = {"clip": uploaded, **SMALL}
        facts = page("encode", request).json()
        assert facts["grid"] == [8, 4, 4] and facts["height"] % 4 == facts["width"] % 4 == 0
        asked = {**request, "retention": 0.25, "compressors": ["evs"]}
        index = page("export", {**asked, "kind": "numbers"}).json()["compressors"][0]["index"]
        (tmp_path / "clip.mp4").write_bytes(clip.read_bytes())
        code = page("export", {**asked, "kind": "python"}).text
        command = page("export", {**asked, "kind": "command"}).text
    finally:
        studio.pages.shut()
    assert json.loads(printed(code, tmp_path)[0].partition(" ")[2]) == index
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == 0
    with safe_open(tmp_path / "clip-score" / "tokens.safetensors", "pt") as kept:
        assert kept.get_tensor("index").tolist() == index
        assert kept.get_tensor("tokens").shape == (len(index), 32) and kept.metadata()["tower"] == str(folder)
