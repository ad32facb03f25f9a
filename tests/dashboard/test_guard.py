"""Who is let in to the model, what may be asked, and one call at a time."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from expander_sae.errors import ExpanderError
from expander_sae.server import Live, serve
from expander_sae.server.application import MOST_BYTES, application
from tests.dashboard.conftest import Serving

HOST, TOKEN = "127.0.0.1:1234", "the-token"
STEERED = {"prompt": "The river", "edits": [], "tokens": 2, "temperature": 0, "seed": 0}


@pytest.fixture
def client(live: Live, live_folder: Path) -> Iterator[TestClient]:
    with TestClient(application(live, live_folder, TOKEN, {HOST}), base_url=f"http://{HOST}") as found:
        found.headers["x-token"] = TOKEN
        yield found


@pytest.mark.parametrize("path", ["/", "/data.js", "/live-here.js", "/api/encode"])
@pytest.mark.parametrize(
    "headers", [{"x-token": "wrong"}, {"x-token": ""}, {"host": "evil.example"}, {"origin": "http://evil.example"},
                {"origin": "null"}, {"origin": f"https://{HOST}"}, {"host": "localhost:1"}],
)  # fmt: skip
def test_strangers_are_refused(client: TestClient, path: str, headers: Mapping[str, str]) -> None:
    method = "POST" if path.startswith("/api") else "GET"
    answer = client.request(
        method, path, headers=dict(headers), json={"text": "The river"} if method == "POST" else None
    )
    assert answer.status_code == 403
    assert answer.json()["error"].endswith(".")


def test_the_token_opens_the_page_and_its_files(client: TestClient) -> None:
    del client.headers["x-token"]
    assert client.get("/").status_code == 403
    page = client.get(f"/?token={TOKEN}")
    assert "live-here.js" in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert client.get("/main.js").status_code == 200  # with the cookie that came with the page
    assert TOKEN in client.get("/live-here.js").text
    own = client.post("/api/encode", json={"text": "The river"}, headers={"origin": f"http://{HOST}"})
    assert own.json()["tokens"]


@pytest.mark.parametrize("path", ["/../config.json", "/%2e%2e/x.js", "/nothing.js", "/%00", "/pages", "//etc/passwd"])
def test_no_other_file_is_served(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "The request is not JSON."),
        (b"\xff\xfe", "The request is not JSON."),
        (b"[" * 100_000, "The request is not JSON."),
        (b"[]", "The request is no JSON object."),
        (b"{}", "The request needs a text, text."),
        (b'{"text": 3}', "The request needs a text, text."),
        (b'{"text": ""}', "The prompt is empty; give at least a word."),
        (json.dumps({"text": "x" * 30_000}).encode(), "The text has 30,000 characters; at most 20,000 are read."),
        (b" " * (MOST_BYTES + 1), "The request is too long."),
    ],
)
def test_bad_requests_end_in_a_sentence(client: TestClient, body: bytes, sentence: str) -> None:
    answer = client.post("/api/encode", content=body)
    assert (answer.status_code, answer.json()) == (400, {"error": sentence})


def edit(**changes: Any) -> dict[str, Any]:
    return {"feature": 0, "kind": "scale", "strength": 1, "from": "all", **changes}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"edits": [edit(feature=48)]}, "feature must be from 0 to 47, not 48."),
        ({"edits": [edit(feature=-1)]}, "feature must be from 0 to 47, not -1."),
        ({"edits": [edit(feature="3")]}, "The request needs a number, feature."),
        ({"edits": [edit(strength=float("nan"))]}, "The request needs a number, strength."),
        ({"edits": [edit(kind="delete")]}, "An edit is one of add, clamp, scale, ablate."),
        ({"edits": "all"}, "The request needs a list, edits."),
        ({"tokens": 401}, "tokens must be from 1 to 400, not 401."),
        ({"tokens": 10**400}, "tokens must be from 1 to 400, not that."),
        ({"tokens": True}, "The request needs a number, tokens."),
        ({"temperature": -1}, "temperature must be from 0 to 10, not -1."),
    ],
)
def test_bad_steering_ends_in_a_sentence(client: TestClient, changes: Mapping[str, Any], sentence: str) -> None:
    answer = client.post("/api/steer", content=json.dumps({**STEERED, **changes}))
    assert [json.loads(line) for line in answer.text.splitlines()][-1] == {"error": sentence}


def test_steering_streams_lines(client: TestClient) -> None:
    lines = [json.loads(line) for line in client.post("/api/steer", json=STEERED).text.splitlines()]
    assert lines[0] == {"waiting": 0}
    assert {"without", "steered"} >= {line["side"] for line in lines if "side" in line}
    assert lines[-1]["next_tokens"]


def test_a_port_in_use_is_told(live: Live, live_folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ExpanderError, match=f"Port {port} cannot be had"):
            serve(live, live_folder, port=port, ready=lambda address: None)


class SlowModel:
    """Writes without end until nobody listens any more, and knows how many have asked at once."""

    language_model = SimpleNamespace(name="slow")

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.ended = threading.Event()

    def steer(self, asked: Mapping[str, Any], listen: Callable[[str, str], bool | None]) -> dict[str, Any]:
        with self:
            while not listen("without", "word "):
                threading.Event().wait(0.01)
        self.ended.set()
        return {"next_tokens": []}

    def encode(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        with self:
            return {"tokens": [], "ended": self.ended.is_set()}

    def __enter__(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)

    def __exit__(self, *_: object) -> None:
        self.inside -= 1


def test_one_call_at_a_time_and_who_leaves_stops_the_model(serving: Serving, live_folder: Path) -> None:
    """Were the model not stopped, or another let in before it has stopped, this would never end, or fail."""
    model: Any = SlowModel()
    address, thread = serving(model, live_folder)
    base, token = address.split("/?token=")
    answers = list[Any]()

    def encode() -> None:
        with httpx.Client(base_url=base, headers={"x-token": token}, timeout=None) as other:
            answers.append(other.post("/api/encode", json={}).json())

    with (
        httpx.Client(base_url=base, headers={"x-token": token}, timeout=None) as client,
        client.stream("POST", "/api/open", json={}) as page,
    ):
        beats = page.iter_raw()  # kept: httpx closes what nobody reads any more
        assert next(beats)
        with client.stream("POST", "/api/steer", json={}) as answer:
            lines = answer.iter_lines()
            assert json.loads(next(lines)) == {"waiting": 0}
            while "side" not in json.loads(next(lines)):
                pass
            waiting = threading.Thread(target=encode)
            waiting.start()
            with client.stream("POST", "/api/steer", json={}) as second:
                assert json.loads(next(second.iter_lines()))["waiting"] >= 1
            assert not answers
        waiting.join()
    assert answers == [{"tokens": [], "ended": True}]
    assert model.most == 1
    thread.join()
