"""Where the cache is, on every platform."""

from pathlib import Path

import pytest

from expander_sae.activations import packaged
from expander_sae.activations.packaged import cache_folder
from expander_sae.errors import ExpanderError


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("EXPANDER_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)


def test_own_setting_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EXPANDER_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"


@pytest.mark.parametrize(
    ("platform", "place"), [("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")]
)
def test_platforms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, place: str) -> None:
    monkeypatch.setattr(packaged.sys, "platform", platform)
    assert cache_folder() == tmp_path / place / "expander-sae"


@pytest.mark.parametrize(("platform", "name"), [("linux", "XDG_CACHE_HOME"), ("win32", "LOCALAPPDATA")])
def test_settings_of_platforms(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, name: str) -> None:
    monkeypatch.setattr(packaged.sys, "platform", platform)
    monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere" / "expander-sae"


def test_relative_xdg_is_ignored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packaged.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert cache_folder() == tmp_path / ".cache" / "expander-sae"


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(ExpanderError, match="EXPANDER_CACHE"):
        cache_folder()
