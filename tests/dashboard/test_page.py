"""The dashboard in a real browser: every view, from a disk and from a static host."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from expander_sae.features.matching import matched_by_columns, matched_by_firing
from expander_sae.reporting.dashboard import Shown, write_dashboard
from tests.dashboard.planted import DEAD, HOSTILE, N, database


def features_of(page: Page) -> list[int]:
    """The features of the rows that the table shows, from above."""
    rows = page.locator(".grid-row").evaluate_all(
        "rows => rows.map(row => [Number(row.getAttribute('aria-rowindex')), Number(row.children[0].textContent)])"
    )
    return [feature for _, feature in sorted(rows)]


def test_the_overview_says_what_there_is(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("h1")).to_have_text("<i>0")
    expect(page.locator("main")).to_contain_text(f"{N} of width 16")
    expect(page.locator("main")).to_contain_text("<b>none</b>")
    expect(page.locator("tr", has_text="FVU")).to_contain_text("0.200 to 0.300")
    page.get_by_role("link", name="dead").click()
    expect(page.locator("#count")).to_contain_text("for “dead”")
    expect(page.locator(".grid-row").first).to_be_visible()
    assert DEAD in features_of(page)


def test_the_table_sorts_by_any_column_both_ways(page: Page, address: str, one: Shown) -> None:
    page.goto(f"{address}#/table")
    expect(page.locator(".grid-row").first).to_be_visible()
    largest = one.database.largest.tolist()
    for turn in (-1, 1):
        page.get_by_role("button", name=re.compile("^largest")).click()
        expect(page.locator('[aria-sort="descending"]' if turn < 0 else '[aria-sort="ascending"]')).to_contain_text(
            "largest"
        )
        shown = features_of(page)
        alive = [feature for feature in range(N) if largest[feature] > 0]
        assert shown == sorted(alive, key=lambda feature: turn * largest[feature])[: len(shown)]


def test_orders_are_those_of_the_values(page: Page, folder: Path) -> None:
    """Of both signs, with ties, signed zeros and gaps, as floats and as whole numbers; gaps come last either way."""
    page.goto((folder / "index.html").as_uri())
    expect(page.locator("h1")).to_be_visible()
    wrong = page.evaluate("""() => {
      let seed = 1;
      const drawn = () => (seed = (seed * 48271) % 2147483647) / 2147483647 - 0.5, n = 400, wrong = [];
      const floats = Float32Array.from({ length: n }, () => {
        const value = drawn();
        return value > 0.4 ? NaN : value > 0.3 ? 0 : value < -0.4 ? -0 : value * 10 ** Math.round(60 * drawn());
      });
      const whole = Int32Array.from({ length: n }, () => Math.round(drawn() * (drawn() > 0 ? 9 : 4e9)));
      const dictionary = { n, columns: { floats, whole }, orders: new Map() };
      const feature = Array.from({ length: n }, (_, j) => j);
      for (const [name, values] of Object.entries({ floats, whole, feature })) {
        for (const descending of [false, true]) {
          const keys = Array.from(values, (value) => (Number.isNaN(value) ? Infinity : descending ? -value : value));
          const wanted = keys.map((_, j) => j).sort((a, b) => keys[a] - keys[b] || a - b);
          const found = [...X.ordered(dictionary, name, descending)];
          if (found.join() !== wanted.join()) wrong.push([name, descending]);
        }
      }
      return wrong;
    }""")
    assert wrong == []


def test_the_table_draws_what_is_seen_and_no_more(page: Page, address: str) -> None:
    page.goto(f"{address}#/table?sort=feature&dir=1")
    expect(page.locator(".grid-row").first).to_be_visible()
    assert features_of(page)[:3] == [0, 1, 2]
    assert len(features_of(page)) < N / 2
    page.locator(".grid").evaluate("grid => { grid.scrollTop = grid.scrollHeight; }")
    expect(page.get_by_role("link", name=str(N - 1), exact=True)).to_be_visible()
    assert len(features_of(page)) < N / 2


def test_search_by_token_number_and_condition(page: Page, address: str, one: Shown) -> None:
    page.goto(address)
    search = page.locator("#search")
    search.press_sequentially("WATER")
    expect(page.locator("#count")).to_contain_text("for “WATER”")
    for feature in features_of(page):
        strongest = [each for each in one.database.contexts(feature) if each["group"] == "strongest"]
        assert any(each["tokens"][each["peak"]] == " water" for each in strongest)
    found = len(features_of(page))
    assert 0 < found < N
    search.fill("17")
    expect(page.locator("#count")).to_contain_text("for “17”")
    assert features_of(page)[0] == 17
    fired = one.database.features().column("fired").to_pylist()
    search.fill("fired>=200")
    expect(page.locator("#count")).to_contain_text(f"{sum(count >= 200 for count in fired)} of {N}")
    search.fill("water fired>=1000000")
    expect(page.locator("#count")).to_contain_text(f"0 of {N}")
    expect(page.locator(".nothing")).to_be_visible()
    search.fill('"<script>alert"')
    expect(page.locator(".grid-row").first).to_contain_text("<script>")
    assert page.url.endswith("q=%22%3Cscript%3Ealert%22")


def test_a_condition_on_what_was_not_measured_is_told(page: Page, address: str, one: Shown) -> None:
    page.goto(address)
    expect(page.locator("h1")).to_be_visible()
    page.evaluate("delete X.dictionaries[0].columns.purity")
    page.fill("#search", "purity>0.5")
    expect(page.locator("#count")).to_contain_text("This dictionary's database has no purity.")


def test_a_page_of_a_feature_shows_its_contexts_by_quantile(page: Page, address: str, one: Shown) -> None:
    feature = one.database.features().column("fired").to_pylist().index(
        max(one.database.features().column("fired").to_pylist())
    )  # fmt: skip
    page.goto(f"{address}#/feature/{feature}")
    expect(page.locator("h1")).to_have_text(f"<i>0 · feature {feature}")
    contexts = one.database.contexts(feature)
    strongest = [each for each in contexts if each["group"] == "strongest"]
    expect(page.locator(".context")).to_have_count(len(strongest))
    peak = page.locator(".context").first.locator(".peak")
    assert float(peak.get_attribute("title") or "") == pytest.approx(strongest[0]["activation"], rel=0.01)
    page.get_by_role("tab", name="weakest quarter").click()
    expect(page.get_by_role("tab", name="weakest quarter")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".context")).to_have_count(sum(each["group"] == "q1" for each in contexts))
    assert page.url.endswith(f"#/feature/{feature}?tab=q1")
    page.reload()  # every state is a link
    expect(page.get_by_role("tab", name="weakest quarter")).to_have_attribute("aria-selected", "true")


def test_dead_and_missing_features_are_told(page: Page, address: str) -> None:
    page.goto(f"{address}#/feature/{DEAD}")
    expect(page.locator(".warn")).to_have_text("This feature fired on no token of the text.")
    for wrong in (N, -1, "x", "1.5"):
        page.goto(f"{address}#/feature/{wrong}")
        expect(page.locator(".warn")).to_contain_text("There is no feature")


def test_one_walks_along_the_graph_and_the_lists(page: Page, address: str, one: Shown) -> None:
    page.goto(f"{address}#/feature/0")
    link = page.locator("svg.graph a").first
    other = int((link.text_content() or "").split()[0])
    touched = [set(one.database.feature(each)["rows"]) for each in (0, other)]
    assert touched[0] & touched[1]
    link.click()
    expect(page.locator("h1")).to_contain_text(f"feature {other}")
    near = page.locator("section", has_text="Nearest columns").locator("a").first
    nearest = one.database.feature(other)["nearest"][0]
    assert near.text_content() == str(nearest)
    near.click()
    expect(page.locator("h1")).to_contain_text(f"feature {nearest}")
    page.go_back()
    expect(page.locator("h1")).to_contain_text(f"feature {other}")


def test_a_mixture_shows_its_atoms_and_an_atom_its_mixtures(page: Page, tmp_path: Path) -> None:
    shown = database(tmp_path / "mixed", seed=0, atoms=True)
    address = write_dashboard([shown], tmp_path / "page", per_shard=32).as_uri()
    feature = 60
    row = shown.database.feature(feature)
    parent = row["atoms"][0]
    page.goto(f"{address}#/feature/{feature}")
    panel = page.locator("section", has=page.get_by_role("heading", name="Atoms", exact=True))
    expect(panel.locator("tbody tr")).to_have_count(4)
    listed = [int(text) for text in panel.locator("tbody tr td:first-child").all_text_contents()]
    assert listed == row["atoms"]
    told = page.evaluate("atom => X.named(X.dictionaries[0], atom, 20).slice(0, 5)", parent)
    expect(panel.locator("tbody tr").first).to_contain_text(told)
    assert page.locator("svg.graph a").count() > 4
    panel.locator("#parent a").click()
    expect(page.locator("h1")).to_contain_text(f"feature {parent}")
    of_atom = page.locator("section", has=page.get_by_role("heading", name="Mixtures of this atom"))
    users = [
        each for each in shown.database.features().to_pylist() if parent in each["atoms"] and each["feature"] != parent
    ]
    children = [each["feature"] for each in users if each["atoms"][0] == parent]
    expect(of_atom).to_contain_text(f"{len(users)} others have it")
    first = int(of_atom.locator("tbody a").first.text_content() or "")
    adds = {each["feature"]: abs(each["atom_weights"][each["atoms"].index(parent)]) for each in users if each["fired"]}
    assert first == max(adds, key=lambda each: adds[each])
    of_atom.get_by_role("link", name=f"parent of {len(children)}").click()
    expect(page.locator("#count")).to_contain_text(f"{len(children)} of {N}")
    assert set(features_of(page)) <= set(children)
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{address}#/feature/{feature}")
    expect(panel).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_everything_can_be_done_with_keys(page: Page, address: str) -> None:
    page.goto(address)
    expect(page.locator("h1")).to_be_visible()
    page.keyboard.press("?")
    expect(page.locator("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()
    page.keyboard.press("/")
    page.keyboard.type("water")
    expect(page.locator("#count")).to_contain_text("for “water”")
    listed = features_of(page)
    page.keyboard.press("Escape")
    expect(page.locator("#search")).not_to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(page.locator(".grid-row.chosen a")).to_have_text(str(listed[0]))
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text(f"feature {listed[0]}")
    page.keyboard.press("j")  # along the list that was searched
    expect(page.locator("h1")).to_contain_text(f"feature {listed[1]}")
    page.keyboard.press("t")
    expect(page.locator("#count")).to_contain_text("for “water”")
    page.keyboard.press("r")
    expect(page.locator("h1")).to_contain_text("feature")
    page.keyboard.press("o")
    expect(page.locator("h1")).to_have_text("<i>0")


def test_light_and_dark(page: Page, address: str) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    page.emulate_media(color_scheme="light")
    page.goto(address)
    expect(page.locator("h1")).to_be_visible()
    light = page.evaluate(paper)
    page.emulate_media(color_scheme="dark")
    dark = page.evaluate(paper)
    assert light != dark
    page.locator("#theme").click()
    assert page.evaluate(paper) == light
    page.reload()
    expect(page.locator("h1")).to_be_visible()
    assert page.evaluate(paper) == light
    page.locator("#theme").click()
    assert page.evaluate(paper) == dark


@pytest.mark.parametrize("view", ["", "#/table", "#/feature/0"])
def test_nothing_is_wider_than_a_phone(page: Page, address: str, view: str) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{address}{view}")
    expect(page.locator("h1, .grid-row").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    expect(page.locator("#search")).to_be_visible()


def test_text_never_becomes_markup(page: Page, address: str, one: Shown) -> None:
    """A dialog or an error of a script would fail the test; see the fixture."""
    peaks = dict[str, int]()
    for feature in range(N):
        for each in one.database.contexts(feature):
            if each["group"] == "strongest":
                peaks.setdefault(each["tokens"][each["peak"]], feature)
    assert set(HOSTILE) <= set(peaks)
    page.goto(f"{address}#/table")
    expect(page.locator(".grid-row").first).to_be_visible()
    scripts = page.locator("body script").count()
    for text, feature in peaks.items():
        page.goto(f"{address}#/feature/{feature}")
        expect(page.locator("h1")).to_contain_text(f"feature {feature}")
        seen = page.locator(".peak").all_text_contents()
        if "<" in text or not text.isascii():
            assert text in seen
    assert page.locator("body script").count() == scripts
    assert page.locator("main img, main b, main script").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_two_dictionaries_stand_side_by_side(page: Page, pair: str) -> None:
    page.goto(pair)
    expect(page.locator("h1")).to_have_text(["<i>0", "<i>1"])
    expect(page.locator("#matched")).to_contain_text("whose column has the largest cosine")
    page.goto(f"{pair}#/feature/3")
    expect(page.locator("h1").first).to_have_text("<i>0 · feature 3")
    expect(page.locator("h1").nth(1)).to_contain_text("<i>1 · feature")
    expect(page.locator("article").nth(1)).to_contain_text("nearest column there, cosine 0.")
    page.locator("article").nth(1).locator("svg.graph a").first.click()
    expect(page.locator("h1").first).to_contain_text("<i>1")
    page.goto(f"{pair}#/table")
    page.get_by_role("link", name="<i>1", exact=True).click()
    expect(page.get_by_role("link", name="<i>1", exact=True)).to_have_attribute("aria-current", "page")


def test_two_looked_at_on_the_same_tokens_are_matched_by_what_they_fire_on(
    page: Page, one: Shown, tmp_path: Path
) -> None:
    other = database(tmp_path / "other", seed=1)
    found = matched_by_firing(one.database, other.database)
    columns = matched_by_columns(one.sae, other.sae)
    feature = int(np.flatnonzero((found.features >= 0) & (found.features != columns.features))[0])
    match, nearest = int(found.features[feature]), int(columns.features[feature])
    address = write_dashboard([one, other], tmp_path / "page", per_shard=32).as_uri()
    page.goto(address)
    expect(page.locator("#matched")).to_contain_text("whose activations on the same tokens have the largest cosine")
    page.goto(f"{address}#/feature/{feature}")
    expect(page.locator("h1").nth(1)).to_have_text(f"<i>1 · feature {match}")
    expect(page.locator("article").nth(1)).to_contain_text(f"nearest column there {nearest}, cosine 0.")
    page.goto(f"{address}#/feature/{DEAD}")
    expect(page.locator("main")).to_contain_text("No feature of <i>1 fires on a token with this one.")


def test_a_missing_file_is_told_in_a_sentence(page: Page, address: str) -> None:
    page.route("**/pages/00001.js", lambda route: route.abort())
    page.goto(f"{address}#/feature/40")
    expect(page.locator(".warn")).to_contain_text("pages/1 of this page is missing; write the dashboard again.")
