"""A run in a process of its own, for tests that kill it: arguments are the folder, the tokens, and `resume` or not.

Prints the step after every step, so that the test knows when to strike.
"""

import sys
from pathlib import Path

from expander_sae.errors import ExpanderError
from expander_sae.training import TensorBatches, train
from tests.training.planted import config, planted


class Telling(TensorBatches):
    """Says how far it is."""

    count = 0

    def __next__(self):
        self.count += 1
        print("batch", self.count, flush=True)
        return super().__next__()


def configs(tokens: int):
    """An expander and a dense dictionary, with everything that has a state."""
    common = {"tokens": tokens, "checkpoint_every": 7 * 64, "dead_after": 640, "average": 0.9}
    readable = config(construction="learned", coder=None, **common)
    return [config(**common), config(d=None, coder="batch_topk", **common), config(coder="omp", **common), readable]


def main() -> None:
    folder, tokens, how = sys.argv[1:]
    _, x = planted(4096)
    try:
        train(Telling(x, batch=64), configs(int(tokens)), out=Path(folder), resume=how == "resume", progress=False)
    except ExpanderError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
