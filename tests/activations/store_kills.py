"""Kills pretended harvests; run by test_store_killed.py, so that forks start from a quiet process.

Every harvest that was killed is taken up again until it is finished, and must then be byte for byte the store of a
harvest that nobody stopped. Prints one JSON object: how many harvests of each kind were killed.
"""

import itertools
import json
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import torch

from expander_sae import files
from expander_sae.activations.store import Store, StoreError, lock, writer
from tests.activations.stores import content, harvest
from tests.kills import KILLED, die_at_line, die_while_writing, in_child

WRITERS = (files, lock, writer)
"""The modules where files are written, removed or named."""
LONG = 150
"""Documents of the harvest that is killed at random times."""
SHORT = 6
"""Documents of the harvest that is killed at every line: two shards and a part."""


def check_readable(path):
    """What a killed harvest left is whole, or is not there yet."""
    try:
        Store.open(path).verify()
    except StoreError as error:
        if "does not exist" not in str(error) and "has no manifest.json" not in str(error):
            raise


def killed_then_finished(path, expected, prepare):
    """Whether the harvest was killed before its end; it is finished all the same and must be as expected."""
    shutil.rmtree(path, ignore_errors=True)

    def work():
        prepare()
        harvest(path, SHORT)

    status = in_child(work)
    assert status in (0, KILLED), f"the child failed with {status}"
    check_readable(path)
    if not (status == 0 or is_complete(path)):
        harvest(path, SHORT)
    assert content(path) == expected
    return status == KILLED


def is_complete(path):
    """Whether there is a finished store."""
    try:
        return Store.open(path).complete
    except StoreError:
        return False


def at_every_line(path, expected):
    """Harvests killed before each line that they run."""
    for step in itertools.count():
        if not killed_then_finished(path, expected, lambda step=step: die_at_line(step, WRITERS)):
            return step
    raise AssertionError


def in_the_middle_of_files(path, expected):
    """Harvests killed while they write any of their files."""
    for file_number in itertools.count():
        for share in (0.0, 0.5, 0.99, 1.0):
            if not killed_then_finished(path, expected, lambda n=file_number, s=share: die_while_writing(n, s)):
                return file_number
    raise AssertionError


def at_random_times(path, expected):
    """Real SIGKILLs to one harvest, until it is finished in spite of them."""
    chance, kills = random.Random(0), 0
    while not is_complete(path):
        child = os.fork()
        if child == 0:
            harvest(path, LONG, together=3)
            os._exit(0)
        time.sleep(chance.uniform(0.0, 0.05 + kills / 1000))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        check_readable(path)
        kills += 1
    assert content(path) == expected
    return kills


def main():
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None  # a killed process loses nothing that the system has; only a power cut would
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        short = content(harvest(place / "short", SHORT))
        long = content(harvest(place / "long", LONG, together=3))
        results = {
            "lines": at_every_line(place / "acts", short),
            "files": in_the_middle_of_files(place / "acts", short),
            "kills": at_random_times(place / "deep" / "acts", long),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
