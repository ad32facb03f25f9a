"""Kills processes that save over an autoencoder; run by test_killed_saves.py, so that forks start from a quiet process.

Prints one JSON object: how often each outcome was found, by scenario. An outcome that is not whole raises.
"""

import collections
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

import expander_sae as xs
from expander_sae import files
from expander_sae.autoencoder import folder
from expander_sae.errors import StorageError
from tests.autoencoder.autoencoders import autoencoder, same
from tests.kills import KILLED, die_at_line, die_while_writing, in_child

WRITERS = (files, folder)
"""The modules where files are written and named."""
ROUNDS = 25


def outcome(path, old, new):
    """Which autoencoder the folder holds: old, new or none at all."""
    try:
        loaded = xs.SparseAutoencoder.load(path)
    except StorageError as error:
        if old is None and ("does not exist" in str(error) or "has no config.json" in str(error)):
            return "old"
        raise
    if same(loaded, new):
        return "new"
    assert old is not None, "something appeared that nobody saved"
    assert same(loaded, old), "neither the old nor the new autoencoder"
    return "old"


def start(path, old):
    """The folder as it was before the save."""
    shutil.rmtree(path, ignore_errors=True)
    if old is not None:
        old.save(path)


def check_killed(path, old, new, prepare):
    """Kill one save; what it left, or None when it was not killed. The next save must succeed and leave two files."""
    start(path, old)

    def work():
        prepare()
        new.save(path)

    status = in_child(work)
    assert status in (0, KILLED), f"the child failed with {status}"
    found = outcome(path, old, new)
    new.save(path)
    assert outcome(path, old, new) == "new"
    assert len(os.listdir(path)) == 2, os.listdir(path)
    return found if status == KILLED else None


def at_every_line(path, old, new):
    """Outcomes of saves killed before each line of these modules that they run."""
    found = collections.Counter()
    for step in itertools.count():
        result = check_killed(path, old, new, lambda step=step: die_at_line(step, WRITERS))
        if result is None:
            return found
        found[result] += 1


def in_the_middle_of_files(path, old, new):
    """Outcomes of saves killed while they write either file."""
    cases = itertools.product((0, 1), (0.0, 0.3, 0.99, 1.0))
    return collections.Counter(
        check_killed(path, old, new, lambda case=case: die_while_writing(*case)) for case in cases
    )


def at_random_times(path, one, other):
    """Outcomes of real SIGKILLs to a process that saves the two in turn."""
    found, chance = collections.Counter(), random.Random(0)
    start(path, one)
    for _ in range(ROUNDS):
        child = os.fork()
        if child == 0:
            for sae in itertools.cycle((other, one)):
                sae.save(path)
        time.sleep(chance.uniform(0, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found[outcome(path, one, other)] += 1
    return found


def large(seed):
    """An autoencoder whose file takes a while to write."""
    generator = torch.Generator().manual_seed(seed)
    dictionary = xs.DenseDictionary(64, 4096, torch.randn(4096, 64, generator=generator))
    return xs.SparseAutoencoder(dictionary, xs.TopK(k=3))


def main():
    torch.set_num_threads(1)
    old, new = autoencoder("stored rows", seed=1), autoencoder("dense", seed=2, tied=False)
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "runs" / "sae"
        results = {
            "every line, over an old one": at_every_line(path, old, new),
            "every line, first save": at_every_line(path, None, new),
            "every line, the same again": at_every_line(path, new, new),
            "middle of a file": in_the_middle_of_files(path, old, new),
            "random times": at_random_times(path, large(1), large(2)),
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
