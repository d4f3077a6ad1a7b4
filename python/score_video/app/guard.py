"""What is let in: requests for this address, from this page, with the password where there is one."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import time
from collections.abc import Awaitable, Callable
from urllib.parse import SplitResult, parse_qs, urlsplit

from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp

from score_video.errors import ScoreError

LOGIN, STYLE = "/login", "/static/app.css"
COOKIE = "score-share"
TRIES = 5
"""Wrong passwords from one address, after which it waits."""

WAIT_SECONDS = 60

HEADERS = {
    # nothing from elsewhere, nothing inline, no frames
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether what listens there can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def check_address(host: str, password: str | None, without_password: bool) -> None:
    """Raises ScoreError where others could open the page without having been let."""
    if password is not None and without_password:
        raise ScoreError("give --share-password or --share-without-password, not both")
    if password is not None and len(password) < 8:
        raise ScoreError(f"--share-password must have at least 8 characters, got {len(password)}")
    if not is_loopback(host) and password is None and not without_password:
        raise ScoreError(
            f"--host {host} can be reached by others: give --share-password, or --share-without-password to let in "
            "whoever finds it"
        )


class Guard(BaseHTTPMiddleware):
    """Refuses foreign hosts (a name that a stranger's page had point here), foreign origins and the wrong password."""

    def __init__(self, app: ASGIApp, *, local: bool, password: str | None = None) -> None:
        """local: whether only this machine's own names for itself are taken."""
        super().__init__(app)
        self._local = local
        self._password = password
        self._cookie = secrets.token_urlsafe(32)
        self._failed: dict[str, list[float]] = {}

    async def dispatch(self, request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """The answer, with ``HEADERS``."""
        response = self._refusal(request) or await self._let_in(request) or await call_next(request)
        for name, value in HEADERS.items():
            response.headers[name] = value
        return response

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if self._local and not is_loopback(_split(f"//{host}").hostname or ""):
            return JSONResponse({"error": "this page is for this machine alone"}, 403)
        origin = request.headers.get("origin")
        if origin is not None and _split(origin).netloc != host:
            return JSONResponse({"error": "this request comes from another page"}, 403)
        return None

    async def _let_in(self, request: Request) -> Response | None:
        """None: go on. Else the page that asks for the password, or what comes of an answer to it."""
        if self._password is None or request.url.path == STYLE:
            return None
        if hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), self._cookie.encode()):
            return None
        if request.url.path != LOGIN:
            if request.url.path.startswith("/api/"):
                return JSONResponse({"error": "the password is needed: load the page again"}, 401)
            return RedirectResponse(LOGIN, 303)
        if request.method != "POST":
            return _login_page()
        return await self._judged(request)

    async def _judged(self, request: Request) -> Response:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > 4096:
                return _login_page("That is too long for a password.", 413)
        # from here on nothing is waited for: of tries that are sent at once each one counts
        address = request.client.host if request.client else ""
        now = time.monotonic()
        if len(self._failed) > 10_000:
            self._failed.clear()
        recent = [at for at in self._failed.get(address, []) if now - at < WAIT_SECONDS]
        if len(recent) >= TRIES:
            return _login_page(f"Too many wrong passwords: wait {WAIT_SECONDS} seconds.", 429)
        given = _field(body.decode("utf-8", "replace"), "password")
        assert self._password is not None
        if not hmac.compare_digest(given.encode(), self._password.encode()):
            self._failed[address] = [*recent, now]
            return _login_page("That is not the password.", 403)
        response = RedirectResponse("/", 303)
        response.set_cookie(COOKIE, self._cookie, httponly=True, samesite="strict")
        return response


def _split(address: str) -> SplitResult:
    """urlsplit, of what need not be an address: then all parts are empty."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _field(form: str, name: str) -> str:
    return parse_qs(form).get(name, [""])[0]


def _login_page(said: str = "", status: int = 200) -> Response:
    """said: a sentence of ours."""
    return Response(
        f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>score: password</title><link rel="stylesheet" href="{STYLE}"></head>
<body class="login"><main><h1>score</h1><form method="post" action="{LOGIN}">
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required autofocus>
<button class="primary">Open</button><p class="problem" role="alert">{said}</p></form></main></body></html>""",
        status,
        media_type="text/html",
    )
