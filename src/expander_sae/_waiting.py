"""Makes torch's idle threads give their core away, where this is imported before torch.

By default they spin for milliseconds after every operation, on cores that compiled kernels and other programs want: on
two cores that cost a training step a quarter of its time, and beside another busy program a language model two thirds
of its speed. OpenMP reads the variable once, when torch is loaded; one that is set already stays.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
