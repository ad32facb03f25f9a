"""The definition of orthogonal matching pursuit where rounding has the last word."""

import pytest
import torch

from expander_sae.coders import OMP
from expander_sae.dictionaries import DenseDictionary
from expander_sae.kernels import greedy


@pytest.mark.parametrize("signed", [False, True])
def test_a_fit_that_rounding_spoiled_is_not_taken(signed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(greedy.DEPENDENT, 4, 1e-7)  # let columns in that are all but combinations of others
    generator = torch.Generator().manual_seed(0)
    columns = torch.randn(64, 4, generator=generator) @ torch.randn(4, 128, generator=generator)
    columns = columns / columns.norm(dim=0) + 1e-4 * torch.randn(64, 128, generator=generator)
    dictionary = DenseDictionary(64, 128, columns.T.contiguous())
    x = torch.randn(200, 64, generator=generator)
    with torch.no_grad():
        residual = x - dictionary.synthesize(OMP(12, signed=signed)(dictionary, x))
    assert (residual.norm(dim=1) < x.norm(dim=1)).all()
