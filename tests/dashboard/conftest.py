"""A browser, dashboards to look at with it, and the tiny model behind a live page."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from expander_sae.activations.models import load_language_model
from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.cli.main import main
from expander_sae.features import FeatureDatabase
from expander_sae.reporting.dashboard import Shown, write_dashboard
from expander_sae.server import Live, serve
from tests.activations.prose import write_prose
from tests.dashboard.planted import TOKENS, database

PATIENCE = 300_000
"""Milliseconds that the browser is waited for on a busy machine; no test is about them."""
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, as `make test` installs it."""
    path = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    if path is None:
        pytest.fail("There is no chromium; apt-get install chromium, or name another in CHROMIUM.")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=arguments, timeout=PATIENCE)
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def one(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """A dictionary whose text is as hostile as texts can be."""
    return database(tmp_path_factory.mktemp("one"), seed=0)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, one: Shown) -> Path:
    """The dashboard of one dictionary."""
    return write_dashboard([one], tmp_path_factory.mktemp("dashboard") / "page", per_shard=32).parent


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory, one: Shown) -> str:
    """The address of a dashboard of two dictionaries that were looked at on other tokens."""
    other = database(tmp_path_factory.mktemp("other"), seed=1, tokens=TOKENS - 100)
    return write_dashboard([one, other], tmp_path_factory.mktemp("pair") / "page", per_shard=32).as_uri()


@contextmanager
def hosted(folder: Path) -> Iterator[str]:
    """The address of a static host of this folder."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/index.html"
        server.shutdown()
        thread.join()


@pytest.fixture(params=["file", "host"])
def address(request: pytest.FixtureRequest, folder: Path) -> Iterator[str]:
    """The dashboard's address, from a disk and from a static host."""
    if request.param == "file":
        yield (folder / "index.html").as_uri()
    else:
        with hosted(folder) as found:
            yield found


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Path) -> Path:
    """A dictionary trained on the tiny model's activations, with its features."""
    folder = tmp_path_factory.mktemp("run")
    prose = write_prose(folder, documents=200)
    main(["harvest", str(tiny_model_folder), "--out", str(folder / "acts"), "--hookpoint", "layers.1",
          "--tokens", "2000", "--text", prose.text, "--context", "32"])  # fmt: skip
    main(["train", str(folder / "acts"), "--out", str(folder / "run"), "--n", "48", "--d", "4", "--k", "4",
          "--tokens", "1280", "--batch", "64", "--no-progress"])  # fmt: skip
    main(["features", str(folder / "run"), "--store", str(folder / "acts"), "--tokens", "1500"])
    (found,) = (path.parent for path in (folder / "run").rglob("features"))
    return found


@pytest.fixture(scope="session")
def live(run: Path, tiny_model_folder: Path) -> Live:
    """The dictionary with the tiny model."""
    return Live(
        FeatureDatabase.open(run), SparseAutoencoder.load(run), load_language_model(str(tiny_model_folder)), "layers.1"
    )


@pytest.fixture(scope="session")
def live_folder(tmp_path_factory: pytest.TempPathFactory, live: Live) -> Path:
    """The dashboard that is shown with the model."""
    return write_dashboard([Shown(live.database, live.sae)], tmp_path_factory.mktemp("live") / "page").parent


Serving = Callable[..., tuple[str, threading.Thread]]


@pytest.fixture
def serving() -> Iterator[Serving]:
    """Serves a folder with a model until its last page is closed; gives the address and the thread that ends then."""
    threads = list[threading.Thread]()

    def start(live: Live, folder: Path) -> tuple[str, threading.Thread]:
        found, there = list[str](), threading.Event()

        def ready(address: str) -> None:
            found.append(address)
            there.set()

        thread = threading.Thread(
            target=serve, args=(live, folder), kwargs={"port": 0, "ready": ready, "patience": 0.0}, daemon=True
        )
        thread.start()
        threads.append(thread)
        assert there.wait(PATIENCE / 1000)
        return found[0], thread

    yield start
    for thread in threads:
        thread.join()  # no call of the model goes on into the next test


@pytest.fixture
def page(browser: Browser, serving: Serving) -> Iterator[Page]:
    """An empty page; whatever goes wrong in its scripts fails the test. It closes before what it is served by ends."""
    opened, wrong = browser.new_page(viewport={"width": 1280, "height": 900}), list[str]()
    opened.set_default_timeout(PATIENCE)
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    yield opened
    opened.close()
    assert not wrong
