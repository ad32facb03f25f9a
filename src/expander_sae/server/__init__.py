"""The live page: the dashboard on localhost with the language model behind it."""

from expander_sae.server.live import Live
from expander_sae.server.serving import serve

__all__ = ["Live", "serve"]
