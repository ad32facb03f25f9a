"""The packages, built once for all tests."""

from pathlib import Path

import pytest

from tests.packaging.environments import built


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist and the wheel."""
    return built(tmp_path_factory.mktemp("packages"))
