"""`expander`: the commands, and the one place that turns an error into a sentence."""

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from expander_sae.cli import study
from expander_sae.cli.bench import Bench
from expander_sae.cli.certify import Certify
from expander_sae.cli.compress import Compress
from expander_sae.cli.cut import Cut
from expander_sae.cli.demo import Demo
from expander_sae.cli.eval import Eval
from expander_sae.cli.finetune import Finetune
from expander_sae.cli.harvest import Harvest
from expander_sae.cli.info import Info
from expander_sae.cli.memory import keep_memory
from expander_sae.cli.model import Model
from expander_sae.cli.train import Train
from expander_sae.errors import ExpanderError
from expander_sae.version import __version__

Command = (
    Annotated[Info, tyro.conf.subcommand("info", prefix_name=False)]
    | Annotated[Compress, tyro.conf.subcommand("compress", prefix_name=False)]
    | Annotated[Model, tyro.conf.subcommand("model", prefix_name=False)]
    | Annotated[Harvest, tyro.conf.subcommand("harvest", prefix_name=False)]
    | Annotated[Train, tyro.conf.subcommand("train", prefix_name=False)]
    | Annotated[Finetune, tyro.conf.subcommand("finetune", prefix_name=False)]
    | Annotated[Cut, tyro.conf.subcommand("cut", prefix_name=False)]
    | Annotated[Eval, tyro.conf.subcommand("eval", prefix_name=False)]
    | Annotated[Certify, tyro.conf.subcommand("certify", prefix_name=False)]
    | Annotated[Demo, tyro.conf.subcommand("demo", prefix_name=False)]
    | Annotated[Bench, tyro.conf.subcommand("bench", prefix_name=False)]
)

DESCRIPTION = f"""expander-sae {__version__}: sparse autoencoders whose dictionary columns touch d coordinates,
not all m of them.

Each command explains itself: expander COMMAND --help"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; every failure that a user can cause is one sentence and exit status 1."""
    keep_memory()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments[:1] == ["study"]:
            return study.main(arguments[1:])
        command = tyro.cli(Command, prog="expander", description=DESCRIPTION, args=arguments)
        command.run()
    except ExpanderError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.strerror}: {error.filename}." if error.filename else f"{error}.")
    except MemoryError:
        _fail("There is not enough memory for this; ask for fewer features, tokens or values per column.")
    except KeyboardInterrupt:
        sys.exit(130)


def _fail(sentence: str) -> None:
    print(f"expander: {sentence}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main()
