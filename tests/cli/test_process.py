"""A command keeps memory that was freed and lets idle threads sleep; the library changes nothing."""

import os
import platform
import subprocess
import sys
import tempfile

import pytest

from expander_sae.cli.process import find_room_for_compiled_code

ALLOCATE = """
import sys
import numpy as np
from expander_sae.cli.process import keep_memory
if sys.argv[1] == "keep":
    keep_memory()
for _ in range(3):
    block = np.ones(2**25)
    del block
print(int(open("/proc/self/statm").read().split()[1]) * 4096)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so eagerly")
def test_freed_memory_is_kept() -> None:
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", ALLOCATE, mode], capture_output=True, text=True, check=True).stdout)
        for mode in ("keep", "return")
    )
    assert kept - returned > 2**27  # of a block of 2**28 bytes


POLICY_WHEN_TORCH_IS_LOADED = """
import os, sys
from importlib.abc import MetaPathFinder
class Watch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"))
            sys.stdout.flush()
            os._exit(0)
sys.meta_path.insert(0, Watch())
"""
COMMAND = "from expander_sae.cli.main import main; main(['info', 'nowhere'])"
LIBRARY = "import expander_sae; expander_sae.Support"


@pytest.mark.parametrize(
    ("program", "given", "wanted"),
    [(COMMAND, None, "passive"), (COMMAND, "active", "active"), (LIBRARY, None, "None"), (LIBRARY, "active", "active")],
)
def test_the_policy_is_set_before_torch_is_loaded_by_a_command_alone_and_the_users_own_stays(
    program: str, given: str | None, wanted: str
) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if given is not None:
        environment["OMP_WAIT_POLICY"] = given
    program = POLICY_WHEN_TORCH_IS_LOADED + program
    found = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == wanted


LOOK = """
import os, sys
before = dict(os.environ)
import expander_sae
assert dict(os.environ) == before
heavy = {"torch", "numpy", "numba", "scipy", "rich", "tyro"} & set(sys.modules)
assert not heavy, heavy
"""


def test_importing_the_library_loads_nothing_and_changes_no_variable() -> None:
    subprocess.run([sys.executable, "-c", LOOK], check=True)


def test_kernels_have_a_place_where_nothing_but_temporary_files_may_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    find_room_for_compiled_code()
    assert "NUMBA_CACHE_DIR" not in os.environ
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    find_room_for_compiled_code()
    assert os.environ["NUMBA_CACHE_DIR"].startswith(tempfile.gettempdir())
    monkeypatch.delenv("NUMBA_CACHE_DIR")
