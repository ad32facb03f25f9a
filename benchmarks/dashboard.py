"""The dashboard's table in Chromium with very many features: python -m benchmarks.dashboard [--n 1000000]

Columns and labels are drawn, since what is measured is the page: how long data.js takes to open, a keystroke in the
search, and sorting by a column. Needs the development packages and chromium.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from playwright.sync_api import Page, sync_playwright

from expander_sae.files import replace_file
from expander_sae.reporting.dashboard import page_files
from expander_sae.reporting.dashboard.writing import NUMBERS, PER_SHARD, STATUS, packed, squeezed

WORDS, LISTED = 30_000, 16
TYPED = "water"
SORTED = ("fired", "largest", "purity", "density")


def main(n: int = 1_000_000, listed: int = LISTED) -> None:
    """Write a page of n features, open it, type and sort; prints milliseconds until the table has been drawn."""
    folder = Path(tempfile.mkdtemp())
    try:
        for name, data in page_files():
            replace_file(folder / name, data)
        content = json.dumps({"dictionaries": [_drawn(n, listed)]})
        replace_file(folder / "data.js", f"X.receive({content});\n".encode())
        print(f"{n:,} features, data.js of {(folder / 'data.js').stat().st_size / 2**20:.0f} MiB", flush=True)
        with sync_playwright() as playwright:
            path = shutil.which(os.environ.get("CHROMIUM", "chromium"))
            browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page()
            page.set_default_timeout(600_000)
            _measure(page, (folder / "index.html").as_uri())
            browser.close()
    finally:
        shutil.rmtree(folder)


def _measure(page: Page, address: str) -> None:
    page.goto(f"{address}#/table")
    page.wait_for_selector(".grid-row")
    opened = page.evaluate("performance.now()")
    print(f"open: {opened / 1000:.1f} s; memory of scripts {page.evaluate(_MEMORY) / 2**20:,.0f} MiB", flush=True)
    for length in range(1, len(TYPED) + 1):
        query = TYPED[:length]
        spent, count = page.evaluate(_DRAWN, {"q": query})
        print(f"search {query!r}: {spent:.0f} ms, {count}", flush=True)
    for column in SORTED:
        spent, _ = page.evaluate(_DRAWN, {"sort": column, "dir": "-1"})
        print(f"sort by {column}: {spent:.0f} ms", flush=True)


_MEMORY = "performance.memory ? performance.memory.usedJSHeapSize : 0"
_DRAWN = """(state) => {
  const start = performance.now();
  X.table(document.getElementById("main"), X.dictionaries[0], state);
  document.body.offsetHeight;
  return [performance.now() - start, document.getElementById("count").textContent.split(" features")[0]];
}"""


def _drawn(n: int, listed: int) -> dict[str, Any]:
    """A dictionary as data.js has it."""
    generator = np.random.default_rng(0)
    letters = np.array(list("etaoinshrdlucmwfygpb"))
    words = ["".join(generator.choice(letters, size)) for size in generator.integers(2, 9, WORDS)]
    words[:3] = ["water", "’", "é"]
    chosen = (WORDS ** generator.random((n, 10))).astype(int) - 1
    labels = [" " + " ".join(words[j] for j in row[:6]) + "\x01 " + " ".join(words[j] for j in row[6:])
              for row in chosen.tolist()]  # fmt: skip
    columns = {
        name: packed(generator.random(n) * (1000 if kind == "i4" else 1), kind) for name, kind in NUMBERS.items()
    }
    columns["status"] = packed(np.zeros(n), "u1")
    return {
        "name": "planted", "number": 0, "n": n, "pages": "pages", "per_shard": PER_SHARD, "listed": listed,
        "counts": dict.fromkeys(STATUS, 0), "facts": [], "measures": [], "columns": columns, "labels": squeezed(labels),
        "touched": packed(generator.integers(0, 4096, n * listed), "i4"),
    }  # fmt: skip


if __name__ == "__main__":
    tyro.cli(main)
