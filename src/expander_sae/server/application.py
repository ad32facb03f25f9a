"""The application: the page's files, and the requests that need the model, one at a time.

Whoever knows the address may use the model, so the address holds a token that every request has to carry; and a page of
another origin is refused even with it, whatever a browser was talked into.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from anyio import CancelScope
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from expander_sae.errors import ExpanderError
from expander_sae.server.live import Live

Answer = Callable[[dict[str, Any]], dict[str, Any]]

MOST_BYTES = 2**20
"""Of the body of a request."""
HEARTBEAT = 0.5
"""Seconds between the lines that tell whether a page is still open."""
LIVE_SCRIPT = "live-here.js"
PAGE_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


class Queue:
    """One call of the model at a time; who waits knows how many are before them."""

    def __init__(self) -> None:
        self._lock, self.waiting = asyncio.Lock(), 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Inside, the model is ours."""
        self.waiting += 1
        try:
            async with self._lock:
                yield
        finally:
            self.waiting -= 1


class Visitors:
    """The pages that are open: each holds a request open as long as it is."""

    def __init__(self) -> None:
        self.open = 0
        self.left: float | None = None
        """When the last page was closed; None before the first, and while one is open."""

    @asynccontextmanager
    async def visit(self) -> AsyncIterator[None]:
        """Inside, a page is open."""
        self.open, self.left = self.open + 1, None
        try:
            yield
        finally:
            self.open -= 1
            if not self.open:
                self.left = time.monotonic()


def application(live: Live, folder: Path, token: str, hosts: set[str]) -> _Guard:
    """The ASGI application that shows the dashboard in `folder` with the model behind it.

    `hosts` are the names, with their port, under which it may be asked.
    """
    queue, visitors = Queue(), Visitors()

    async def page(request: Request) -> Response:
        return _file(folder, request.path_params.get("path") or "index.html", live, token)

    async def encode(request: Request) -> Response:
        asked = await _body(request)
        async with queue.turn():
            return JSONResponse(await asyncio.to_thread(live.encode, asked))

    async def steer(request: Request) -> Response:
        asked = await _body(request)
        return StreamingResponse(_steered(live, queue, asked, request), media_type="application/x-ndjson")

    async def stay(request: Request) -> Response:
        return StreamingResponse(_staying(visitors, request), media_type="application/x-ndjson")

    async def refused(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, status_code=400)

    routes = [
        Route("/api/encode", encode, methods=["POST"]),
        Route("/api/steer", steer, methods=["POST"]),
        Route("/api/open", stay, methods=["POST"]),
        Route("/{path:path}", page),
    ]
    app = Starlette(routes=routes, exception_handlers={ExpanderError: refused})
    return _Guard(app, token, hosts, visitors)


class _Guard:
    """Lets only those in who know the token, and only from our own page."""

    def __init__(self, app: ASGIApp, token: str, hosts: set[str], visitors: Visitors) -> None:
        self._app, self._token, self._hosts, self.visitors = app, token, hosts, visitors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        reason = self._refusal(request)
        if reason is not None:
            await JSONResponse({"error": reason}, status_code=403)(scope, receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *_HEADERS]
            await send(message)

        await self._app(scope, receive, guarded)

    def _refusal(self, request: Request) -> str | None:
        if request.headers.get("host", "") not in self._hosts:
            return "This host is not the one that the page is served from."
        origin = request.headers.get("origin")
        if origin is not None and origin.removeprefix("http://") not in self._hosts:
            return "A page of another origin asks; that is not allowed."
        given = (
            request.headers.get("x-token") or request.query_params.get("token") or request.cookies.get("token") or ""
        )
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return "The address lacks its token; use the address that expander view printed."
        return None


_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src data:",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
]


def _file(folder: Path, name: str, live: Live, token: str) -> Response:
    """A file of the dashboard; its page is told the token and the model by a script that is no file."""
    if name == LIVE_SCRIPT:
        known = json.dumps({"token": token, "model": live.language_model.name})
        return Response(f"window.LIVE = {known};", media_type=PAGE_TYPES[".js"])
    path = (folder / name.replace("\0", "")).resolve()
    if not path.is_relative_to(folder.resolve()) or path.suffix not in PAGE_TYPES or not path.is_file():
        return JSONResponse({"error": "There is no such file."}, status_code=404)
    data = path.read_bytes()
    if path.name != "index.html":
        return Response(data, media_type=PAGE_TYPES[path.suffix])
    data = data.replace(b"</head>", f'<script src="{LIVE_SCRIPT}"></script>\n</head>'.encode())
    response = Response(data, media_type=PAGE_TYPES[".html"])
    response.set_cookie("token", token, httponly=True, samesite="strict")  # for the scripts that the page loads
    return response


async def _body(request: Request) -> dict[str, Any]:
    """The JSON object of a request."""
    data = bytearray()
    async for part in request.stream():
        data += part
        if len(data) > MOST_BYTES:
            raise ExpanderError("The request is too long.")
    try:
        content = json.loads(bytes(data))
    except (ValueError, RecursionError) as error:
        raise ExpanderError("The request is not JSON.") from error
    if not isinstance(content, dict):
        raise ExpanderError("The request is no JSON object.")
    return content


async def _staying(visitors: Visitors, request: Request) -> AsyncIterator[str]:
    """An answer that does not end before the page is closed."""
    async with visitors.visit():
        while not await request.is_disconnected():
            yield "\n"
            await asyncio.sleep(HEARTBEAT)


async def _steered(live: Live, queue: Queue, asked: dict[str, Any], request: Request) -> AsyncIterator[str]:
    """Lines of JSON: who is before us, what is written as it comes, the change of the next token, or what was wrong."""
    yield _line({"waiting": queue.waiting})
    async with queue.turn():
        yield _line({"waiting": 0})
        loop = asyncio.get_running_loop()
        lines: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        gone = False

        def tell(line: dict[str, Any] | None) -> None:
            loop.call_soon_threadsafe(lines.put_nowait, line)

        def listen(side: str, text: str) -> bool:
            tell({"side": side, "text": text})
            return gone

        def work() -> None:
            try:
                tell(live.steer(asked, listen))
            except ExpanderError as error:
                tell({"error": str(error)})
            finally:
                tell(None)

        task: Awaitable[None] = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            while (line := await lines.get()) is not None:
                if await request.is_disconnected():
                    break
                yield _line(line)
        finally:
            gone = True  # the model stops at its next token, and only then is it another's turn
            with CancelScope(shield=True):
                await task


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content) + "\n"
