"""The definition of orthogonal matching pursuit where rounding has the last word."""

import pytest
import torch

from expander_sae.coders import OMP, MatchingPursuit
from expander_sae.dictionaries import ComposedDictionary, DenseDictionary, ExpanderDictionary
from expander_sae.kernels import greedy
from expander_sae.supports import Support


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


@pytest.mark.parametrize("coder", [OMP(6), OMP(6, signed=True), MatchingPursuit(6)])
def test_mixtures_pass_over_columns_that_are_taken_or_refused(coder: OMP | MatchingPursuit) -> None:
    """Of columns that are there nine times the next best open one is far down the list, as in the dense dictionary."""
    generator = torch.Generator().manual_seed(0)
    atoms = DenseDictionary(20, 24, torch.randn(24, 20, generator=generator, dtype=torch.float64))
    support = Support.make("uniform", m=24, n=30, d=3)
    values = torch.randn(30, 3, generator=generator, dtype=torch.float64).repeat(9, 1)
    mixtures = ExpanderDictionary(Support.from_rows(support.rows.repeat(9, 1), 24), values)
    composed = ComposedDictionary(atoms, mixtures)
    dense = DenseDictionary(20, 270, composed.to_dense().T.contiguous())
    x = torch.randn(300, 20, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = (each.synthesize(coder(each, x)) for each in (composed, dense))
    torch.testing.assert_close(ours, theirs)
