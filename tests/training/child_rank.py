"""One process of several, for tests: trains, and dies at a step if it is told to. Arguments: folder, rank to die."""

import os
import sys
from pathlib import Path

from expander_sae.errors import ExpanderError
from expander_sae.training import TensorBatches, joined, train
from tests.training.planted import config, planted

DIES_AT = 256 + 30


class Mortal(TensorBatches):
    """Takes its process with it, after some batches, if that is its fate."""

    fated, count = False, 0

    def __next__(self):
        self.count += 1
        if self.fated and self.count == DIES_AT:
            os._exit(9)
        return super().__next__()


def main() -> None:
    folder, dying = Path(sys.argv[1]), int(sys.argv[2])
    with joined() as group:
        source = Mortal(planted(4096)[1], batch=64, rank=group.rank, world=group.world)
        source.fated = group.rank == dying
        try:
            train(source, config(tokens=64 * 40, checkpoint_every=64 * 10), out=folder, progress=False)
        except ExpanderError as error:
            print(f"rank {group.rank}: {error}", file=sys.stderr, flush=True)
            os._exit(1)


if __name__ == "__main__":
    main()
