"""What learned columns are written in: the coordinates of an activation, or the atoms of a composed dictionary.

Moves and pruning work on the expander dictionary of an alphabet and ask here what its rows stand for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.coders import Candidates
from expander_sae.dictionaries import ComposedDictionary, Dictionary, ExpanderDictionary, shards_of

OWN_SHARE = 0.65
"""A mixture that begins as a token fires where its column correlates this much as with that token, and so beside atoms
and not instead of them: without a bias the 16 largest correlations of a token are nearly all with mixtures."""
CHUNK = 1 << 18
"""Columns made of tokens at a time."""
WRITTEN_OUT = 4096
"""Columns written out over coordinates at a time."""
FEWEST_ATOMS = 2
"""Atoms of a column that begins as a token: one that begins as a single atom would be that atom again."""

POWERS = 10
"""Times that a vector is seen by the atoms and written again until its length tells how much they stretch at most. At
m=2048, p=4096 they take 0.08 s and the eigenvalues 1.6 s; twice too low would be near enough."""


class Alphabet(ABC):
    """The rows that columns choose from."""

    columns: ExpanderDictionary
    """The columns over these rows."""

    @property
    def size(self) -> int:
        """How many rows there are to choose from."""
        return self.columns.m

    @abstractmethod
    def of_tokens(
        self, x: Float[Tensor, "tokens m"], drawn: Int[Tensor, " n"], d: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Columns of unit norm with up to d rows that write the drawn of these tokens; rows ascend, then `size`."""

    @abstractmethod
    def seen(self, residual: Float[Tensor, "tokens m"]) -> Float[Tensor, "tokens size"]:
        """How far a step of gradient descent moves each row's entry, per unit of code."""

    @abstractmethod
    def first_bias(
        self, x: Float[Tensor, "tokens m"], drawn: Int[Tensor, " f"], features: Int[Tensor, " f"]
    ) -> Float[Tensor, " f"] | None:
        """The bias of features that begin as the drawn of these tokens; none if it is that of an ordinary feature."""

    @abstractmethod
    def usual_norm(self) -> Float[Tensor, ""]:
        """The norm of an ordinary column."""

    @abstractmethod
    def ordinary(self, anew: Int[Tensor, " anew"]) -> Bool[Tensor, " n"]:
        """Which features say what is usual while these begin anew."""


class Coordinates(Alphabet):
    """The coordinates of an activation."""

    def __init__(self, columns: ExpanderDictionary, spread: Float[Tensor, " m"]) -> None:
        self.columns, self.spread = columns, spread

    def of_tokens(
        self, x: Float[Tensor, "tokens m"], drawn: Int[Tensor, " n"], d: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "n d"], Float[Tensor, "n d"]]:
        return rows_of_largest(x[drawn], self.spread, len(drawn), d)

    def seen(self, residual: Float[Tensor, "tokens m"]) -> Float[Tensor, "tokens size"]:
        return residual

    def first_bias(self, x: Float[Tensor, "tokens m"], drawn: Int[Tensor, " f"], features: Int[Tensor, " f"]) -> None:
        return None

    def usual_norm(self) -> Float[Tensor, ""]:
        return shards_of(self.columns).gathered(self.columns.norms()).median()

    def ordinary(self, anew: Int[Tensor, " anew"]) -> Bool[Tensor, " n"]:
        return torch.ones(self.columns.n, dtype=torch.bool, device=anew.device)


class Atoms(Alphabet):
    """The atoms of a composed dictionary."""

    def __init__(self, dictionary: ComposedDictionary, signed: bool) -> None:
        self.dictionary, self.columns, self._signed = dictionary, dictionary.mixtures, signed

    def of_tokens(
        self, x: Float[Tensor, "tokens m"], drawn: Int[Tensor, " n"], d: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Of each token the largest few of its codes over the atoms, how many of them drawn by lot from two to d."""
        atoms = self.dictionary.atoms
        width = min(d, atoms.n)
        # Of many columns, most begin as a token that others begin as too.
        once, token = drawn.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        codes = Candidates(width, signed=self._signed)(atoms, x[once])
        order = (codes.values * atoms.norms()[codes.indices]).abs().sort(dim=1, descending=True, stable=True).indices
        rows, values = codes.indices.gather(1, order)[token], codes.values.gather(1, order)[token]
        drawn = torch.randint(min(FEWEST_ATOMS, width), width + 1, (len(drawn), 1), generator=generator).to(x.device)
        places = torch.arange(width, device=x.device)
        kept = (places < drawn) & ((values != 0) | (places == 0))
        rows, ascending = torch.where(kept, rows, self.size).sort(dim=1, stable=True)
        values = (values * kept).gather(1, ascending)
        parts = (torch.split(each, WRITTEN_OUT) for each in (rows.clamp_max(self.size - 1), values))
        norms = torch.cat([self._norms(*piece) for piece in zip(*parts, strict=True)])
        beyond = (0, d - width)
        return (
            nn.functional.pad(rows, beyond, value=self.size).to(torch.int32),
            nn.functional.pad(values * torch.where(norms > 0, 1 / norms, 0.0), beyond),
        )

    def _norms(self, rows: Int[Tensor, "c d"], values: Float[Tensor, "c d"]) -> Float[Tensor, "c 1"]:
        """The norms of columns with these values of these atoms."""
        atoms = self.dictionary.atoms.values.detach()
        columns = nn.functional.embedding_bag(rows, atoms, per_sample_weights=values, mode="sum")
        return torch.linalg.vector_norm(columns, dim=1, keepdim=True)

    def seen(self, residual: Float[Tensor, "tokens m"]) -> Float[Tensor, "tokens size"]:
        """About half of the step from which on the residual would overshoot, since atoms are not orthogonal."""
        atoms = self.dictionary.atoms.values.detach()
        return residual @ atoms.T / _largest_square(atoms)

    def first_bias(
        self, x: Float[Tensor, "tokens m"], drawn: Int[Tensor, " f"], features: Int[Tensor, " f"]
    ) -> Float[Tensor, " f"]:
        once, token = drawn.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        seen, mixtures = self.dictionary.atoms.correlate(x[once]), self.columns.columns(features)
        own = (seen[token[:, None], mixtures.rows.long()] * mixtures.values).sum(dim=1)
        return -OWN_SHARE * own.detach().clamp_min(0)

    def usual_norm(self) -> Float[Tensor, ""]:
        norms = self.dictionary.norms()
        return norms[norms > 0].median()

    def ordinary(self, anew: Int[Tensor, " anew"]) -> Bool[Tensor, " n"]:
        """Those that do not begin anew, as at first most columns do."""
        others = torch.ones(self.columns.n, dtype=torch.bool, device=anew.device).index_fill(0, anew, False)
        return others if bool(others.any()) else ~others


def _largest_square(atoms: Float[Tensor, "p m"]) -> Float[Tensor, ""]:
    """The square of the largest singular value, a few per cent too low; the same whenever it is asked for."""
    x = torch.randn(atoms.shape[1], generator=torch.Generator().manual_seed(0)).to(atoms)
    for _ in range(POWERS):
        x = nn.functional.normalize((atoms @ x) @ atoms, dim=0)
    return torch.linalg.vector_norm(atoms @ x).square()


def alphabets_of(sae: SparseAutoencoder, spread: Float[Tensor, " m"], signed: bool) -> list[Alphabet]:
    """What the dictionary is written in, and the encoder if it is another."""

    def alphabet(dictionary: Dictionary) -> Alphabet:
        if isinstance(dictionary, ComposedDictionary):
            return Atoms(dictionary, signed)
        assert isinstance(dictionary, ExpanderDictionary)
        return Coordinates(dictionary, spread)

    return [alphabet(dictionary) for dictionary in dict.fromkeys((sae.dictionary, sae.encoder))]


def rows_of_largest(
    x: Float[Tensor, "tokens m"], spread: Float[Tensor, " m"], n: int, d: int, part: range | None = None
) -> tuple[Int[Tensor, "n d"], Float[Tensor, "n d"]]:
    """n columns of unit norm on the d coordinates where a token each is largest, or part of them; rows ascend.

    Coordinates are compared after division by the root of their spread, so that the few largest are not in every
    column. If there are fewer tokens than columns, later columns take the coordinates that the first ones left.
    """
    tokens, m = x.shape
    part = range(n) if part is None else part
    depth = min(m, -(-n // tokens) * d)
    order = (x.abs() / spread.clamp_min(torch.finfo(x.dtype).tiny).sqrt()).topk(depth, dim=1).indices
    rows = torch.empty(len(part), d, dtype=torch.int32, device=x.device)
    values = x.new_empty(len(part), d)
    slots = torch.arange(d, device=x.device)
    # Some at a time, since what it takes to find a column is many times the column.
    for chunk in torch.split(torch.arange(len(part), device=x.device), CHUNK):
        column = chunk + part.start
        # The ranks that a round of the tokens takes; the first ones again once there are no more.
        start = column // tokens * d % max(1, depth - d + 1)
        token = (column % tokens)[:, None]
        chosen = order[token, start[:, None] + slots].sort(dim=1).values
        entries = x[token, chosen]
        norms = torch.linalg.vector_norm(entries, dim=1, keepdim=True)
        rows[chunk], values[chunk] = chosen.to(torch.int32), torch.where(norms > 0, entries / norms, d**-0.5)
    return rows, values
