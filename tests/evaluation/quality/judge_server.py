"""A judge on this machine: a real HTTP server that answers as a language model behind chat completions would."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str], str | int | bytes]
"""What is answered to a prompt: words, a status, or bytes that are no chat completion."""


@dataclass
class Server:
    """Where the judge is, and what it was asked."""

    url: str
    answer: Answer
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        """The questions, one after the other."""
        return [body["messages"][0]["content"] for body in self.asked]


@contextmanager
def judge_server(answer: Answer) -> Iterator[Server]:
    """Inside, the judge answers at its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(body)
            server.keys.append(self.headers.get("Authorization"))
            found = server.answer(body["messages"][0]["content"]) if self.path == "/v1/chat/completions" else 404
            status = found if isinstance(found, int) else 200
            data = found if isinstance(found, bytes) else b"{}"
            if isinstance(found, str):
                data = json.dumps({"choices": [{"message": {"role": "assistant", "content": found}}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{http.server_address[1]}/v1", answer)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def agreeable(prompt: str) -> str:
    """Answers every kind of question in its form."""
    if "Answer with that sentence only" in prompt:
        return "Tokens about rivers."
    if "Answer with one digit" in prompt:
        return "4"
    return "1, 3"
