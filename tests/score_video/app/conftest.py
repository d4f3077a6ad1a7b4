"""A server without a browser. Imports are in the fixtures: without ``score-video[app]`` tests are skipped."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from opened import Page

if TYPE_CHECKING:
    from starlette.testclient import TestClient

    from score_video.app.encoded import Encoded
    from score_video.app.studio import Studio


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    from score_video.app.studio import Studio

    studio = Studio(max_bytes=200_000)
    yield studio
    studio.pages.shut()


@pytest.fixture(scope="module")
def encoded(studio: Studio) -> Encoded:
    """Eight frames of the first example, for a module's own studio that has a model."""
    return studio.encode(studio.pages.examples[0], studio.cut(8, 224, 28))


@pytest.fixture(scope="module")
def client(studio: Studio) -> TestClient:
    from starlette.testclient import TestClient

    from score_video.app.server import Server

    # not entered: that would shut the studio afterwards, which tests share
    return TestClient(Server(studio).app, base_url="http://127.0.0.1:7860", raise_server_exceptions=False)


@pytest.fixture
def page(client: TestClient) -> Iterator[Page]:
    page = Page(client)
    yield page
    page("leave", {"page": page.key})
