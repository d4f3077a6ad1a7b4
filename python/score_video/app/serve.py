"""Starts the page: what ``score app`` runs."""

from __future__ import annotations

import asyncio
import logging
import socket
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from score_video.app.encoded import FIRST_QUESTION
from score_video.app.guard import check_address, is_loopback
from score_video.app.server import Server
from score_video.app.studio import Studio
from score_video.errors import ScoreError

END_SECONDS = 2
"""How long answers and uploads that are under way may take once the server is to end."""


@dataclass(frozen=True)
class Listen:
    """Where the page can be opened, and by whom.

    Attributes:
        host, port: an address of this machine; port 0: any that is free.
        password: what others have to give; None: only this machine can open the page.
        without_password: whether it may be opened from elsewhere by anybody.

    Raises:
        ScoreError: others could open the page without having been let.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    password: str | None = None
    without_password: bool = False

    def __post_init__(self) -> None:
        check_address(self.host, self.password, self.without_password)
        if not 0 <= self.port <= 65535:
            raise ScoreError(f"--port must be 0 to 65535, got {self.port}")


@contextmanager
def listening_on(listen: Listen) -> Iterator[socket.socket]:
    """The address, taken; who opens it before it is served waits. Raises ScoreError where it cannot be had."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((listen.host, listen.port))
            listening.listen()
        except OSError as error:
            raise ScoreError(f"--host {listen.host} --port {listen.port}: {error.strerror or error}") from None
        yield listening


def serve(
    studio: Studio, listen: Listen, listening: socket.socket, said: Callable[[str], None], *, browse: bool = False
) -> None:
    """Serves until it is interrupted.

    Args:
        listening: the socket that :func:`listening_on` opened.
        said: is told the address once the page can be opened.
        browse: whether a browser is opened there.
    """
    import uvicorn

    first = studio.pages.examples[0]
    shown = studio.encode(first, studio.first_cut)  # so that the page shows it at once
    if (model := studio.source.model) is not None:  # what a device does once would count towards the first answer
        retention = min(0.1, studio.most_retention)
        model.ask(shown, studio.first, retention, FIRST_QUESTION, lambda line: None, max_new_tokens=2)
    server = Server(studio, local=is_loopback(listen.host), password=listen.password)
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    address = f"http://{host}:{listening.getsockname()[1]}"
    said(address)
    if browse:
        webbrowser.open(address)
    config = uvicorn.Config(server.app, log_level="warning", access_log=False, server_header=False)
    # what is under way when the server ends is given up, which is no error
    logging.getLogger("uvicorn.error").addFilter(_is_no_cancellation)
    config.timeout_graceful_shutdown = END_SECONDS
    uvicorn.Server(config).run(sockets=[listening])


def _is_no_cancellation(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
