"""Serving the live page on this machine alone, until nobody looks at it any more."""

from __future__ import annotations

import asyncio
import secrets
import socket
import time
from collections.abc import Callable
from pathlib import Path

from expander_sae.errors import ExpanderError, require
from expander_sae.server.live import Live

LOOPBACK = "127.0.0.1"
PATIENCE = 5.0
"""Seconds without any page after which the server stops, so that one can be loaded anew; for the first one it waits as
long as it takes."""


def serve(live: Live, folder: Path, *, port: int, ready: Callable[[str], None], patience: float = PATIENCE) -> None:
    """Serve the dashboard in `folder` with the model behind it; `ready` is told the address once it can be opened.

    Returns when the last page was closed, or on Ctrl-C. Port 0 takes any that is free.
    """
    require("starlette", "uvicorn", extra="view")
    import uvicorn

    from expander_sae.server.application import application

    listening = _listening(port)
    number, token = listening.getsockname()[1], secrets.token_urlsafe(24)
    hosts = {f"{LOOPBACK}:{number}", f"localhost:{number}"}
    app = application(live, folder, token, hosts)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False, timeout_graceful_shutdown=2))

    async def watched() -> None:
        running = asyncio.ensure_future(server.serve(sockets=[listening]))
        while not server.started and not running.done():
            await asyncio.sleep(0.02)
        ready(f"http://{LOOPBACK}:{number}/?token={token}")
        while not running.done():
            await asyncio.sleep(0.2)
            left = app.visitors.left
            if left is not None and time.monotonic() - left > patience:
                server.should_exit = True
        await running

    with listening:
        asyncio.run(watched())


def _listening(port: int) -> socket.socket:
    """A socket on loopback."""
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((LOOPBACK, port))
    except (OSError, OverflowError) as error:
        found.close()
        raise ExpanderError(f"Port {port} cannot be had on this machine; choose another with --port, or 0.") from error
    found.listen(64)
    return found
