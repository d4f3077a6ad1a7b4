"""An open page, without a browser."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.testclient import TestClient

SMALL = {"frames": 8, "size": 112, "patch": 28}
EXAMPLE = {"clip": "example-bunny", **SMALL}


class Page:
    """An open page."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.offer = client.post("/api/page", json={}).json()
        self.key = self.offer["page"]

    def __call__(self, name: str, body: dict[str, Any], key: str | None = None) -> Any:
        return self.client.post(f"/api/{name}", json=body, headers={"score-page": key or self.key})

    def upload(self, content: bytes, name: str = "clip.mp4") -> Any:
        headers = {"score-page": self.key, "score-name": name}
        return self.client.post("/api/upload", content=content, headers=headers)


Receive = Callable[[], Awaitable[Any]]
"""As in ASGI: the parts of a request as they come."""


async def posted(app: Any, path: str, headers: dict[str, str], receive: Receive) -> tuple[int, str]:
    """The status and the text of the answer to a request whose body comes bit by bit."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in {"host": "127.0.0.1", **headers}.items()],
        "client": ("10.0.0.9", 1),
    }
    status, text = [], []

    async def send(message: Any) -> None:
        status.append(message.get("status"))
        text.append(message.get("body", b""))

    await app(scope, receive, send)
    return status[0], b"".join(text).decode()
