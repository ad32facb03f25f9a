"""When a dashboard is written, and when the one that is there will do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from expander_sae import server
from expander_sae.cli.main import main
from expander_sae.errors import ExpanderError
from expander_sae.reporting.dashboard import Shown, is_written, write_dashboard, writing
from tests.dashboard.planted import database


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The dashboards that are written from here on."""
    found, write = list[Path](), writing.write_dashboard

    def counted(shown: Any, out: Path, *rest: Any) -> Path:
        found.append(out)
        return write(shown, out, *rest)

    monkeypatch.setattr("expander_sae.reporting.dashboard.write_dashboard", counted)
    return found


@pytest.fixture
def view(run: Path, tiny_model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """`expander view` up to where it serves; gives the folder that it would serve."""
    served = list[Path]()
    monkeypatch.setattr(server, "serve", lambda live, folder, **_: served.append(folder))

    def start() -> Path:
        main(["view", str(run), "--model", str(tiny_model_folder), "--no-open"])
        return served[-1]

    return start


def test_view_writes_its_page_once_and_anew_for_another_database(
    view: Callable[[], Path], written: list[Path], run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = view()
    assert page == run / "dashboard"
    assert view() == page
    assert written == [page]
    (page / "index.html").unlink()  # as a killed command leaves it
    view()
    assert written == [page] * 2
    main(["features", str(run), "--store", str(run.parent / "acts"), "--tokens", "1500", "--drawn", "1"])
    view()
    view()
    assert written == [page] * 3
    monkeypatch.setattr(writing, "_page_version", lambda: "another")
    view()
    assert written == [page] * 4


def test_a_dashboard_of_two_will_do_for_its_first_alone(one: Shown, tmp_path: Path) -> None:
    other = database(tmp_path / "other", seed=1)
    page = write_dashboard([one, other], tmp_path / "page", per_shard=32).parent
    assert is_written(one, page)
    assert not is_written(other, page)


@pytest.mark.parametrize("mark", ["", "{", "[]", "{}", '{"page": 1}', '{"page": "", "databases": []}'])
def test_a_mark_that_was_damaged_will_not_do(one: Shown, folder: Path, tmp_path: Path, mark: str) -> None:
    page = write_dashboard([one], tmp_path / "page", per_shard=32).parent
    assert is_written(one, page)
    (page / writing.MARK).write_text(mark)
    assert not is_written(one, page)


def test_a_folder_of_something_else_is_left_alone(one: Shown, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ExpanderError, match="holds something that is no dashboard"):
        write_dashboard([one], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
