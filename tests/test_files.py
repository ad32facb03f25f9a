"""Files take their place in one step, and never that of what is no file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from expander_sae.errors import ExpanderError
from expander_sae.files import replace_file


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no such things")
def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(ExpanderError, match="is no file, and is not replaced by one"):
            replace_file(tmp_path / name, b"content")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "pipe"]


def test_a_file_is(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        replace_file(tmp_path / "file", content)
        assert (tmp_path / "file").read_bytes() == content
