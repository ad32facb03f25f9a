"""The live page in a real browser, on the tiny model and once on the real one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from playwright.sync_api import Page, expect

import expander_sae as xs
from expander_sae.activations.models import load_language_model
from expander_sae.cli.main import main
from expander_sae.features import FeatureDatabase
from expander_sae.interventions import edit_in_units, steer
from expander_sae.reporting.dashboard import Shown, write_dashboard
from expander_sae.server import Live
from tests.dashboard.conftest import Serving

TEXT = "The river and the bridge"


def test_typing_shows_what_fires(page: Page, serving: Serving, live: Live, live_folder: Path) -> None:
    tokens = live.encode({"text": TEXT})["tokens"]  # before the page asks: one call of the model at a time
    address, _ = serving(live, live_folder)
    page.goto(f"{address}#/live")
    page.fill("#typed", TEXT)
    expect(page.locator("#seen .token")).to_have_count(len(tokens))
    assert "".join(page.locator("#seen .token").all_text_contents()) == TEXT
    expect(page.locator("#fires tbody tr")).to_have_count(len(tokens[-1]["features"]))  # of the last token
    page.locator("#seen .token").nth(2).click()
    shown = page.locator("#fires tbody a").all_text_contents()
    assert shown == [str(each["feature"]) for each in tokens[2]["features"]]
    page.locator("#fires button", has_text="show").first.click()
    expect(page.locator("#said")).to_contain_text(f"Coloured by feature {shown[0]}")
    fires = [any(str(each["feature"]) == shown[0] for each in token["features"]) for token in tokens]
    coloured = page.locator("#seen .token").evaluate_all("nodes => nodes.map(node => node.classList.contains('on'))")
    assert coloured == fires
    page.locator("#fires tbody a").first.click()
    expect(page.locator("h1")).to_contain_text(f"feature {shown[0]}")
    page.locator("#steer").click()
    expect(page.locator(".edit")).to_contain_text(shown[0])
    assert page.input_value("#typed") == TEXT


def test_steering_writes_both_texts_and_a_table(page: Page, serving: Serving, live: Live, live_folder: Path) -> None:
    feature = int(live.database.largest.argmax())
    edit = edit_in_units("clamp", feature, 2.0, float(live.database.largest[feature]))
    expected = steer(live.language_model, {"layers.1": live.sae}, {"layers.1": [edit]}, TEXT, tokens=6)
    address, _ = serving(live, live_folder)
    page.goto(f"{address}#/live")
    page.fill("#typed", TEXT)
    page.fill("#add", "1000000")
    page.press("#add", "Enter")
    expect(page.locator("#note")).to_contain_text("There is no feature 1000000")
    page.fill("#add", str(feature))
    page.press("#add", "Enter")
    page.locator(".edit select").first.select_option("clamp")
    page.locator(".edit input[type=number]").fill("2")
    page.fill("#tokens", "6")
    page.click("#write")
    expect(page.locator("#next tbody tr")).to_have_count(len(expected.next_tokens))
    assert page.locator("#without").text_content() == expected.without
    assert page.locator("#steered").text_content() == expected.steered
    page.locator(".edit button").click()
    expect(page.locator(".edit")).to_have_count(0)


def test_what_the_server_refuses_is_told(page: Page, serving: Serving, live: Live, live_folder: Path) -> None:
    address, _ = serving(live, live_folder)
    page.goto(f"{address}#/live")
    page.fill("#tokens", "100000")
    page.click("#write")
    expect(page.locator("#note")).to_have_text("tokens must be from 1 to 400, not 100000.")


def test_it_ends_with_its_last_page(page: Page, serving: Serving, live: Live, live_folder: Path) -> None:
    address, thread = serving(live, live_folder)
    with page.expect_response("**/api/open"):
        page.goto(address)
    expect(page.locator("h1")).to_be_visible()
    page.goto("about:blank")
    thread.join()
    assert not thread.is_alive()


@pytest.mark.slow
def test_the_real_model_end_to_end(page: Page, serving: Serving, smollm2: Path, tmp_path: Path) -> None:
    """Text in, colours and two texts out, on SmolLM2 with a dictionary of few features."""
    torch.manual_seed(0)
    sae = xs.SparseAutoencoder(xs.ExpanderDictionary(xs.Support.make("uniform", m=576, n=96, d=7, seed=0)), xs.OMP(k=8))
    sae.save(tmp_path / "run")
    text = tmp_path / "text.txt"
    text.write_text("The old bridge over the river was washed away by the flood. " * 20)
    main(["features", str(tmp_path / "run"), "--model", str(smollm2), "--hookpoint", "layers.12", "--text", str(text),
          "--part", "all", "--context", "32", "--tokens", "200"])  # fmt: skip
    database = FeatureDatabase.open(tmp_path / "run")
    live = Live(database, sae, load_language_model(str(smollm2)), "layers.12")
    folder = write_dashboard([Shown(database, sae)], tmp_path / "page").parent
    address, _ = serving(live, folder)
    page.goto(f"{address}#/live")
    page.fill("#typed", "The river")
    expect(page.locator("#seen .token")).to_have_text(["The", " river"])
    page.fill("#add", str(int(database.largest.argmax())))
    page.press("#add", "Enter")
    page.fill("#tokens", "3")
    page.click("#write")
    expect(page.locator("#next tbody tr").first).to_be_visible()
    assert page.locator("#without").text_content()
    assert page.locator("#steered").text_content()
