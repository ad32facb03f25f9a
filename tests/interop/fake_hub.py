"""A hub in the standard library: repositories of small files in memory, as the client of Hugging Face speaks to one."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class FakeHub:
    """What was uploaded: the files of every commit, by repository."""

    def __init__(self) -> None:
        self.commits: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.refuses: int | None = None
        """The status of every answer, if it is to refuse all."""
        self.because = ""
        """The reason that it then gives, such as GatedRepo."""
        self.license: str | None = None
        """The one license that a card may name; any if there is none."""
        self.spaces: dict[str, str] = {}
        """What runs the repositories that are Spaces."""

    def files(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """A commit and its files; the newest for main."""
        commits = self.commits.get(repository)
        if not commits:
            return None
        return commits[-1] if revision == "main" else next((each for each in commits if each[0] == revision), None)

    def commit(self, repository: str, lines: list[dict[str, Any]]) -> str:
        """Add the files of a commit to those that there were."""
        before = self.files(repository, "main")
        files = dict(before[1]) if before else {}
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        number = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self.commits[repository].append((number, files))
        return number


def _handler(hub: FakeHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            """Nothing: tests are silent."""

        def answer(self, content: bytes | dict[str, Any] | list[Any], status: int = 200, **headers: str) -> None:
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            base = f"http://127.0.0.1:{self.server.server_address[1]}"
            if hub.refuses:
                self.answer({"error": "no"}, hub.refuses, X_Error_Code=hub.because)
            elif self.path == "/api/repos/create":
                content = json.loads(body)
                owner = content.get("organization")
                name = f"{owner}/{content['name']}" if owner else content["name"]
                hub.commits.setdefault(name, [])
                if content.get("type") == "space":
                    hub.spaces[name] = content["sdk"]
                self.answer({"url": f"{base}/{name}"})
            elif found := re.fullmatch(r"/api/(?:models|spaces)/(.+)/preupload/main", self.path):
                files = json.loads(body)["files"]
                self.answer(
                    {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
                )
            elif found := re.fullmatch(r"/api/(?:models|spaces)/(.+)/commit/main", self.path):
                number = hub.commit(found[1], [json.loads(line) for line in body.splitlines()])
                url = f"{base}/{found[1]}/commit/{number}"
                self.answer({"commitUrl": url, "commitOid": number, "success": True, "hookOutput": ""})
            else:  # the check of the card
                known = hub.license is None or f"license: {hub.license}" in json.loads(body)["content"]
                problems = [] if known else [{"message": f'"license" must be one of [{hub.license}]'}]
                self.answer({"errors": problems, "warnings": []}, 400 if problems else 200)

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if hub.refuses:
                self.answer({"error": "no"}, hub.refuses, X_Error_Code=hub.because)
            elif found := re.fullmatch(r"/api/(?:models|spaces)/(.+?)(?:/(?:revision|tree)/([^/]+))?", path):
                self.about(found[1], found[2] or "main", tree="/tree/" in path)
            elif found := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
                self.file(found[1], found[2], found[3])
            else:
                self.answer({}, 404)

        do_HEAD = do_GET

        def about(self, repository: str, revision: str, *, tree: bool) -> None:
            held = hub.files(repository, revision)
            if held is None:
                code = "RevisionNotFound" if repository in hub.commits else "RepoNotFound"
                self.answer({"error": code}, 404, X_Error_Code=code)
            elif tree:
                self.answer([{"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                             for name, data in held[1].items()])  # fmt: skip
            else:
                siblings = [{"rfilename": name} for name in held[1]]
                self.answer({"id": repository, "sha": held[0], "siblings": siblings, "private": False, "tags": []})

        def file(self, repository: str, revision: str, name: str) -> None:
            held = hub.files(repository, revision)
            if held is None or name not in held[1]:
                self.answer({}, 404, X_Error_Code="EntryNotFound")
                return
            data = held[1][name]
            self.answer(data, X_Repo_Commit=held[0], ETag=f'"{hashlib.sha1(data).hexdigest()}"')

    return Handler


@contextmanager
def serving() -> Iterator[tuple[FakeHub, str]]:
    """A hub, and where it answers."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
