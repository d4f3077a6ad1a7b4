"""The routes of the page. Every one of them answers JSON (or a file), errors too: one line under "error"."""

from __future__ import annotations

import asyncio
import json
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from importlib.resources import files
from typing import Any, TypeVar
from urllib.parse import unquote

import anyio
import numpy as np
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from score_video.app import exports
from score_video.app.bodies import fraction, integer, json_of, names, text
from score_video.app.encoded import Encoded, packed_bits
from score_video.app.guard import Guard
from score_video.app.pages import BusyError, GoneError, TooLargeError
from score_video.app.studio import Studio
from score_video.errors import ScoreError

STATIC = {
    "app.css": "text/css",
    "api.js": "text/javascript",
    "app.js": "text/javascript",
    "ask.js": "text/javascript",
    "clip.js": "text/javascript",
    "draw.js": "text/javascript",
    "patch.js": "text/javascript",
    "slider.js": "text/javascript",
    "state.js": "text/javascript",
    "take.js": "text/javascript",
    "theme.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""Every file that can be asked for by name; no name is ever made a path."""

WAITING = 12
"""Long jobs that may wait; more are turned away."""

STALLED_SECONDS = 60
"""After so long without a byte an upload is given up, so that nobody takes up the room of others."""

T = TypeVar("T")


class Server:
    """The application, :attr:`app`."""

    def __init__(self, studio: Studio, *, local: bool = True, password: str | None = None) -> None:
        """local, password: as for :class:`score_video.app.guard.Guard`."""
        self._studio = studio
        self._long, self._short = anyio.CapacityLimiter(2), anyio.CapacityLimiter(8)
        self._waiting = 0
        static = files("score_video.app") / "static"
        self._static = {name: (static / name).read_bytes() for name in STATIC}
        self._index = (static / "index.html").read_bytes()
        routes = [
            Route("/", self._page),
            Route("/login", self._page),
            Route("/static/{name}", self._file),
            *(
                Route(f"/api/{name}", _errors(function), methods=["POST"])
                for name, function in {
                    "page": self._open,
                    "leave": self._leave,
                    "upload": self._upload,
                    "encode": self._encode,
                    "sprite": self._sprite,
                    "select": self._select,
                    "patch": self._patch,
                    "export": self._export,
                    "ask": self._ask,
                }.items()
            ),
        ]
        self.app = Starlette(
            routes=routes, middleware=[Middleware(Guard, local=local, password=password)], lifespan=self._lifespan
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        async def sweep() -> None:
            while True:
                await asyncio.sleep(60)
                self._studio.pages.sweep()

        task = asyncio.create_task(sweep())
        try:
            yield
        finally:
            task.cancel()
            self._studio.pages.shut()

    async def _page(self, request: Request) -> Response:
        return Response(self._index, media_type="text/html")

    async def _file(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            return JSONResponse({"error": "there is no such file"}, 404)
        return Response(self._static[name], media_type=STATIC[name])

    async def _open(self, request: Request) -> Response:
        studio = self._studio
        return JSONResponse({"page": studio.pages.open(), **studio.offer()})

    async def _leave(self, request: Request) -> Response:
        # sendBeacon can set no header
        self._studio.pages.close(text(await json_of(request), "page"))
        return JSONResponse({})

    async def _upload(self, request: Request) -> Response:
        page = self._known(request)
        upload = self._studio.pages.new_upload(page, unquote(request.headers.get("score-name", "")))
        parts = aiter(request.stream())
        try:
            while True:
                async with asyncio.timeout(STALLED_SECONDS):
                    part = await anext(parts, None)
                if part is None:
                    break
                upload.write(part)
            clip = upload.finish()
        except TimeoutError:
            upload.abandon()
            raise ScoreError(f"nothing more of the upload came for {STALLED_SECONDS} s: try again") from None
        except BaseException:
            upload.abandon()
            raise
        return JSONResponse({"clip": clip.key, "name": clip.name})

    async def _encode(self, request: Request) -> Response:
        return JSONResponse((await self._encoded(request, await json_of(request))).facts())

    async def _sprite(self, request: Request) -> Response:
        encoded = await self._encoded(request, await json_of(request))
        return Response(await anyio.to_thread.run_sync(encoded.sprite, limiter=self._short), media_type="image/jpeg")

    async def _select(self, request: Request) -> Response:
        body = await json_of(request)
        encoded = await self._encoded(request, body)
        chooser = encoded.chooser(self._studio.chosen(text(body, "compressor")))
        retention = fraction(body, self._studio.most_retention)
        choice = await anyio.to_thread.run_sync(partial(chooser.at, retention), limiter=self._short)
        return JSONResponse(
            {
                "kept": packed_bits(choice.index, len(encoded.videos.tokens)),
                "count": len(choice.index),
                "milliseconds": round(choice.milliseconds, 2),
                "first": choice.first,
            }
        )

    async def _patch(self, request: Request) -> Response:
        body = await json_of(request)
        encoded = await self._encoded(request, body)
        row, retention = integer(body, "row"), fraction(body, self._studio.most_retention)
        facts = []
        for name in names(body):
            chooser = encoded.chooser(self._studio.chosen(name))
            look = partial(chooser.patch, row, retention)
            facts.append(asdict(await anyio.to_thread.run_sync(look, limiter=self._short)))
        for fact in facts:
            if fact["score"] is not None and not np.isfinite(fact["score"]):
                fact["score"] = "before all others" if fact["score"] > 0 else "after all others"
        return JSONResponse({"facts": facts})

    async def _export(self, request: Request) -> Response:
        body = await json_of(request)
        encoded = await self._encoded(request, body)
        chosen = [self._studio.chosen(name) for name in names(body)]
        kind, retention = text(body, "kind"), fraction(body, self._studio.most_retention)
        make = partial(exports.export, kind, encoded, chosen, retention, self._studio.source)
        file = await self._in_turn(make)
        return Response(file.content, media_type=file.media_type, headers={"score-name": file.name})

    async def _ask(self, request: Request) -> Response:
        """A line of JSON for each piece of the answers, as :meth:`AnsweringModel.ask` emits them."""
        body = await json_of(request)
        model = self._studio.source.model
        if model is None:
            raise ScoreError("there is no model here to ask: start with --model")
        question, retention = model.check_question(text(body, "question")), fraction(body, self._studio.most_retention)
        chosen = self._studio.chosen(text(body, "compressor"))
        encoded = await self._encoded(request, body)
        loop, lines = asyncio.get_running_loop(), asyncio.Queue[dict[str, Any] | None]()
        stop = threading.Event()

        def emit(line: dict[str, Any] | None) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)

        def answer() -> None:
            try:
                model.ask(encoded, chosen, retention, question, emit, stop.is_set)
            except Exception as error:
                emit({"error": _said(error)[1]})

        async def run() -> None:
            try:
                await self._in_turn(answer)
            except BusyError as error:  # others came between the check below and this
                emit({"error": str(error)})
            finally:
                emit(None)

        async def pieces() -> AsyncIterator[bytes]:
            job = asyncio.create_task(run())
            try:
                while (line := await lines.get()) is not None:
                    yield json.dumps(line).encode() + b"\n"
            finally:  # also where the page is gone
                stop.set()
                await job

        self._check_waiting()
        return StreamingResponse(pieces(), media_type="application/x-ndjson")

    async def _encoded(self, request: Request, body: dict[str, Any]) -> Encoded:
        """The clip that a request is about; cut in turn, unless it is there, as it is for all but the first visitor."""
        page = self._known(request)
        clip = self._studio.pages.clip(page, text(body, "clip"))
        cut = self._studio.cut(integer(body, "frames"), integer(body, "size"), integer(body, "patch"))
        if (encoded := self._studio.shelf.get((clip.key, cut))) is not None:
            return encoded
        return await self._in_turn(partial(self._studio.encode, clip, cut))

    def _known(self, request: Request) -> str:
        page = request.headers.get("score-page", "")
        self._studio.pages.check(page)
        return page

    async def _in_turn(self, job: Callable[[], T]) -> T:
        """A long job, of which two run at a time."""
        self._check_waiting()
        self._waiting += 1
        try:
            return await anyio.to_thread.run_sync(job, limiter=self._long)
        finally:
            self._waiting -= 1

    def _check_waiting(self) -> None:
        if self._waiting >= WAITING:
            raise BusyError("too many are waiting: try again in a minute")


STATUS: tuple[tuple[type[Exception], int], ...] = ((GoneError, 404), (TooLargeError, 413), (BusyError, 503))


def _errors(function: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """What goes wrong becomes a line on the page; what is a bug of ours also a traceback on the server's terminal."""

    async def answer(request: Request) -> Response:
        try:
            return await function(request)
        except ClientDisconnect:
            return JSONResponse({"error": "interrupted"}, 400)
        except Exception as error:
            status, said = _said(error)
            return JSONResponse({"error": said}, status)

    return answer


def _said(error: Exception) -> tuple[int, str]:
    """The status and the line for an error; prints the traceback of one that is a bug of ours."""
    status = next((number for kind, number in STATUS if isinstance(error, kind)), 400)
    if isinstance(error, ScoreError):
        return status, " ".join(str(error).split())
    if isinstance(error, OSError):
        return status, f"the server could not: {error.strerror or error}"
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if memory or "DefaultCPUAllocator" in str(error):
        return 507, "not enough memory: take fewer or smaller frames"
    traceback.print_exception(error)
    return 500, "something went wrong here, which the server's terminal tells"
