"""One process of several, for tests: harvests, and dies if it is told to, as the harvest's first process or another.

Arguments: the folder of the model, that of the text, that of the stores, the rank to die, and after how many batches.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from expander_sae.activations import distributed
from expander_sae.activations.harvest import harvest
from expander_sae.activations.models import load_language_model
from expander_sae.distribution import joined
from expander_sae.errors import ExpanderError
from tests.activations.prose import write_prose


def main() -> None:
    model, prose, out = map(Path, sys.argv[1:4])
    dying, after = map(int, sys.argv[4:])
    compute, batches = distributed.activations_of, 0

    def mortal(*arguments):
        nonlocal batches
        batches += 1
        if group.rank == dying and batches > after:
            os._exit(9)
        return compute(*arguments)

    # torchrun terminates the others as soon as it sees that one is dead; here they are to notice it themselves.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    torch.set_num_threads(1)
    with joined() as group:
        distributed.activations_of = mortal
        try:
            harvest(
                load_language_model(model, device="cpu"), ["layers.[01]"], tokens=600, out=out,
                text=write_prose(prose), tokens_per_shard=100,
            )  # fmt: skip
        except ExpanderError as error:
            print(f"rank {group.rank}: {error}", file=sys.stderr, flush=True)
            os._exit(1)


if __name__ == "__main__":
    main()
