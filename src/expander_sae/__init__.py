"""Sparse autoencoders with expander dictionaries: d learned values per column instead of m.

The public names are listed in `__init__.pyi`; each is imported when it is first asked for: `import expander_sae` loads
neither torch nor anything else, and changes nothing in the process.
"""

from lazy_loader import attach_stub

from expander_sae.version import __version__ as __version__

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)
