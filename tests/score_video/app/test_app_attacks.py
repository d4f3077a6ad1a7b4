"""What strangers send to the page, and what they get."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opened import EXAMPLE, SMALL, Page, posted

pytest.importorskip("starlette", reason="score-video[app] is not installed")
pytest.importorskip("httpx2", reason="starlette's test client needs httpx2")

from starlette.testclient import TestClient

from score_video.app import decoding, folder, pages
from score_video.app.guard import TRIES, check_address
from score_video.app.pages import BusyError
from score_video.app.server import Server
from score_video.app.studio import Studio
from score_video.errors import ScoreError


def broken_files(clip: Path) -> dict[str, bytes]:
    whole = clip.read_bytes()
    return {
        "noise": np.random.default_rng(0).bytes(5000),
        "half of a clip": whole[: len(whole) // 2],
        "text": b"<html>no video</html>" * 40,
        "a playlist of other files": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "a concat script": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "an svg that includes a file": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    }


@pytest.mark.parametrize("kind", list(broken_files(Path(__file__))))
def test_a_broken_or_hostile_upload_is_a_line(kind: str, page: Page, clip: Path, studio: Studio) -> None:
    uploaded = page.upload(broken_files(clip)[kind], "clip.m3u8")
    answer = page("encode", {"clip": uploaded.json()["clip"], **SMALL})
    said = answer.json()["error"]
    assert answer.status_code == 400 and "\n" not in said and len(said) < 300
    assert str(studio.pages.folder) not in said and "Traceback" not in said and "root:" not in said
    assert page("encode", EXAMPLE).status_code == 200  # and it goes on


def test_a_decoder_that_dies_or_hangs_takes_nothing_with_it(page: Page, clip: Path, monkeypatch: Any) -> None:
    request = {"clip": page.upload(clip.read_bytes()).json()["clip"], **SMALL}
    real = subprocess.run
    for program, said in (("import os; os.abort()", "gave up"), ("import time; time.sleep(60)", "more than 1 s")):

        def other(command: list[str], *, program: str = program, **options: Any) -> Any:
            return real([sys.executable, "-c", program], **{**options, "timeout": 1})

        with monkeypatch.context() as patched:
            patched.setattr(decoding.subprocess, "run", other)
            patched.setattr(decoding.read, "__kwdefaults__", {"seconds": 1})
            assert said in page("encode", request).json()["error"]
    assert page("encode", request).status_code == 200


def test_nothing_outside_can_be_read(page: Page, clip: Path, studio: Studio, tmp_path: Path) -> None:
    for path in (
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/%2e%2e/cli.py",
        "/static//etc/passwd",
        "/static/%2fetc%2fpasswd",
        "/static/CREDITS.md",
        "/etc/passwd",
    ):
        answer = page.client.get(path)
        assert answer.status_code == 404 and "root:" not in answer.text, path
    uploaded = page.upload(clip.read_bytes()).json()["clip"]
    name = next(path.name for path in studio.pages.folder.iterdir() if path.name.startswith(uploaded))
    for key in ("../../etc/passwd", "/etc/passwd", name, f"{studio.pages.folder}/{name}", "", "example-bunny/../x"):
        assert page("encode", {"clip": key, **SMALL}).status_code == 404, key
    # another page's clip
    other = Page(page.client)
    assert other("encode", {"clip": uploaded, **SMALL}).status_code == 404
    assert other("sprite", {"clip": uploaded, **SMALL}).status_code == 404
    assert page("encode", {"clip": uploaded, **SMALL}, key="../" + page.key).status_code == 404
    # a link that has taken the place of an upload
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(clip.read_bytes())
    (studio.pages.folder / name).unlink()
    (studio.pages.folder / name).symlink_to(secret)
    assert "not there any more" in page("encode", {"clip": uploaded, **SMALL}).json()["error"]


def test_strangers_are_kept_out(client: TestClient) -> None:
    """Other pages in the same browser, and names of strangers that point here."""
    assert client.get("/", headers={"host": "evil.example:7860"}).status_code == 403
    assert client.get("/", headers={"host": "localhost:7860"}).status_code == 200
    assert client.get("/", headers={"host": "[::1]:7860"}).status_code == 200
    assert client.post("/api/page", json={}, headers={"origin": "http://evil.example"}).status_code == 403
    assert client.post("/api/page", json={}, headers={"origin": "null"}).status_code == 403
    headers = client.get("/").headers
    assert "default-src 'none'" in headers["content-security-policy"] and headers["x-content-type-options"] == "nosniff"
    assert client.get("/api/page").status_code == 405
    for nonsense in ("[", "[::1", "http://["):
        assert client.get("/", headers={"host": nonsense}).status_code == 403
        assert client.post("/api/page", json={}, headers={"origin": nonsense}).status_code == 403


def test_a_password(studio: Studio) -> None:
    app = Server(studio, local=False, password="correct horse").app
    client = TestClient(app, base_url="http://10.0.0.1:7860", follow_redirects=False)
    assert client.get("/").headers["location"] == "/login"
    assert client.post("/api/page", json={}).status_code == 401
    assert client.get("/static/app.js").status_code == 303
    assert 'type="password"' in client.get("/login").text
    assert client.post("/login", content="password=x" * 1000).status_code == 413
    assert client.post("/login", content="password=wrong").status_code == 403
    answer = client.post("/login", content="password=correct+horse")
    assert answer.status_code == 303 and "HttpOnly" in answer.headers["set-cookie"]
    assert client.post("/api/page", json={}).status_code == 200
    client.cookies.clear()
    assert client.get("/", headers={"cookie": "score-share=\xe9".encode("latin-1")}).status_code == 303
    for _ in range(TRIES):
        answer = client.post("/login", content="password=wrong")
    assert client.post("/login", content="password=correct+horse").status_code == 429


def test_who_may_listen_where() -> None:
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        check_address(host, None, False)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        with pytest.raises(ScoreError, match="can be reached by others: give --share-password"):
            check_address(host, None, False)
        check_address(host, None, True)
        check_address(host, "long enough", False)
    with pytest.raises(ScoreError, match="not both"):
        check_address("0.0.0.0", "long enough", True)
    with pytest.raises(ScoreError, match="at least 8 characters, got 5"):
        check_address("0.0.0.0", "short", False)


def test_passwords_that_are_tried_at_once_are_counted(studio: Studio) -> None:
    """Also where each request begins before any of them is judged."""
    app = Server(studio, local=False, password="correct horse").app

    async def tries() -> list[int]:
        begun, all_begun = 0, asyncio.Event()

        async def receive() -> Any:
            nonlocal begun
            begun += 1
            if begun == 4 * TRIES:
                all_begun.set()
            await all_begun.wait()
            return {"type": "http.request", "body": b"password=wrong", "more_body": False}

        answers = await asyncio.gather(*(posted(app, "/login", {}, receive) for _ in range(4 * TRIES)))
        return [status for status, _ in answers]

    assert sorted(asyncio.run(tries())) == TRIES * [403] + 3 * TRIES * [429]


def test_a_page_that_is_no_text_cannot_leave(page: Page) -> None:
    for key in ([], {}, None, 5):
        answer = page("leave", {"page": key})
        assert answer.status_code == 400 and "page must be text" in answer.json()["error"]


def test_an_upload_that_stalls_is_given_up(page: Page, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("score_video.app.server.STALLED_SECONDS", 0.05)
    before = set(studio.pages.folder.iterdir())

    async def upload() -> tuple[int, str]:
        parts = iter([b"the beginning"])

        async def receive() -> Any:
            for part in parts:
                return {"type": "http.request", "body": part, "more_body": True}
            await asyncio.sleep(5)
            return {"type": "http.disconnect"}

        return await posted(page.client.app, "/api/upload", {"score-page": page.key}, receive)

    status, said = asyncio.run(upload())
    assert status == 400 and "nothing more of the upload came for 0.05 s" in said
    assert set(studio.pages.folder.iterdir()) == before


def test_uploads_under_way_take_their_room(page: Page, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    all_pages = studio.pages
    there = sum(path.stat().st_size for path in all_pages.folder.iterdir())
    monkeypatch.setattr(pages, "MAX_DISK_BYTES", there + 3 * all_pages.max_bytes)
    other = Page(page.client)
    first, second = all_pages.new_upload(page.key, "a"), all_pages.new_upload(page.key, "b")
    with pytest.raises(BusyError, match="2 uploads of this page are under way"):
        all_pages.new_upload(page.key, "c")
    third = all_pages.new_upload(other.key, "d")
    with pytest.raises(BusyError, match="no room for another upload"):
        all_pages.new_upload(other.key, "e")
    first.abandon()
    for upload in (second, third):
        upload.write(b"x")
        upload.finish()
    all_pages.new_upload(page.key, "f").abandon()
    other("leave", {"page": other.key})


def test_what_a_killed_server_left_is_deleted_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder.tempfile, "tempdir", str(tmp_path))
    in_use = folder.UploadFolder()
    left, new, other, link = (tmp_path / f"{folder.PREFIX}{name}" for name in ("left", "new", "other", "link"))
    left.mkdir()
    (left / "clip.mp4").write_bytes(b"a stranger's")
    new.mkdir()
    other.write_text("no folder")
    kept = tmp_path / "kept"
    kept.mkdir()
    link.symlink_to(kept)
    long_ago = time.time() - 2 * folder.YOUNG_SECONDS
    for path in (in_use.path, left, kept):
        os.utime(path, (long_ago, long_ago))
    folder.remove_leftovers()
    assert not left.exists() and all(path.exists() for path in (in_use.path, new, other, kept))
    in_use.remove()
    in_use.remove()
    assert not in_use.path.exists()
