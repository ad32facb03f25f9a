"""`python -m expander_sae` is `expander`."""

from expander_sae.cli.main import main

main()
