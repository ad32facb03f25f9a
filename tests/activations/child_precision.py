"""One process of two, for tests: harvests with a model in another precision than the other process.

Arguments: the folder of the model, and the folder where a text and the store go.
"""

import os
import sys
from pathlib import Path

import torch

from expander_sae.activations.harvest import harvest
from expander_sae.activations.models import load_language_model
from expander_sae.distribution import joined
from expander_sae.errors import ExpanderError
from tests.activations.prose import write_prose


def main() -> None:
    model, folder = map(Path, sys.argv[1:])
    torch.set_num_threads(1)
    with joined() as group:
        language_model = load_language_model(model, dtype=(torch.float32, torch.bfloat16)[group.rank], device="cpu")
        (folder / f"text{group.rank}").mkdir()
        text = write_prose(folder / f"text{group.rank}")
        try:
            harvest(language_model, ["layers.1"], tokens=600, out=folder / "acts", text=text)
        except ExpanderError as error:
            print(f"rank {group.rank}: {error}", file=sys.stderr, flush=True)
            group.wait()
            os._exit(1)


if __name__ == "__main__":
    main()
