"""Basis pursuit: the exact codes of smallest weighted l1 norm, by linear programming."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from expander_sae.checks import at_least
from expander_sae.coders.base import Coder, code_in_chunks, rounding_unit
from expander_sae.dictionaries import Codes, Dictionary
from expander_sae.errors import ExpanderError

if TYPE_CHECKING:
    from scipy.sparse import csc_array

MOST_FEATURES = 20_000
"""The largest dictionary that a linear program per token is sensible for."""
FINEST = 1e-10
"""The finest tolerance that the solver can work to."""
COARSEST = 1e-4
"""The coarsest: SciPy refuses what misses the equations by more."""
USUAL = 1e-9
"""The tolerance for exact activations."""
ROUNDING_UNITS = 16
"""The default tolerance, in rounding units of the activations' precision, where that is coarser."""
INFEASIBLE = 2
"""The solver's word for equations that no codes meet."""


@dataclass(frozen=True)
class LinearProgram:
    """Least `cost @ codes` over non-negative codes that meet `matrix @ codes = token`."""

    matrix: csc_array
    cost: NDArray[np.float64]
    reach: NDArray[np.float64]
    """The largest entry of each column."""

    def solve(self, token: NDArray[np.float64], tolerance: float) -> NDArray[np.float64] | None:
        """The best codes [n], or None where no codes meet the equations."""
        scale = np.abs(token).max()
        if scale == 0:
            return np.zeros(len(self.cost))
        from scipy.optimize import linprog  # half a second that only this coder needs

        result = linprog(
            self.cost,
            A_eq=self.matrix,
            b_eq=token / scale,
            bounds=(0, None),
            method="highs",
            options={"primal_feasibility_tolerance": tolerance, "dual_feasibility_tolerance": USUAL},
        )
        if result.status == INFEASIBLE:
            return None
        if result.status != 0:
            raise ExpanderError(f"A linear program was not solved: {result.message}")
        # Codes that move no coordinate by more than the tolerance are the solver's rounding.
        codes: NDArray[np.float64] = np.where(result.x * self.reach > tolerance, result.x, 0.0) * scale
        return codes


@dataclass(frozen=True)
class BasisPursuit(Coder):
    """Codes that reproduce the token exactly at the least l1 norm; for verification, on the CPU, token by token.

    Solves a linear program of n variables (2 n when signed) and m equations per token with HiGHS: fine up to about
    2000 features. A token that the dictionary cannot reproduce is refused, which for non-negative codes is common.
    """

    weighted: bool = True
    """Let a code cost the l1 norm of its column, as the recovery theorem wants it, rather than 1."""
    tolerance: float | None = None
    """Share of the token's largest entry by which an equation may be missed (default: what rounding needs)."""
    signed: bool = False
    """Allow negative codes."""

    def __post_init__(self) -> None:
        if self.tolerance is not None:
            at_least("tolerance", self.tolerance, FINEST)
            if self.tolerance > COARSEST:
                raise ExpanderError(f"tolerance must be at most {COARSEST}, not {self.tolerance}.")

    def __call__(self, dictionary: Dictionary, x: Float[Tensor, "*batch m"]) -> Codes:
        if dictionary.n > MOST_FEATURES:
            raise ExpanderError(
                f"Basis pursuit takes at most {MOST_FEATURES} features, not {dictionary.n}; OMP takes any number."
            )
        with torch.no_grad():
            matrix = dictionary.to_dense().double().cpu().numpy()
        usual = min(COARSEST, max(USUAL, ROUNDING_UNITS * rounding_unit(dictionary, x)))
        tolerance = usual if self.tolerance is None else self.tolerance
        # One chunk, so that a token that is refused can be named by its position.
        return code_in_chunks(dictionary, x, None, 1, lambda tokens: self._solve(matrix, tokens, tolerance))

    def _solve(
        self, matrix: NDArray[np.float64], x: Float[Tensor, "batch m"], tolerance: float
    ) -> tuple[Tensor, Tensor]:
        cost = np.abs(matrix).sum(axis=0) if self.weighted else np.ones(matrix.shape[1])
        if self.signed:
            # A signed code is the difference of two non-negative ones.
            matrix, cost = np.hstack([matrix, -matrix]), np.concatenate([cost, cost])
        from scipy.sparse import csc_array

        program = LinearProgram(csc_array(matrix), cost, np.abs(matrix).max(axis=0))
        solved = np.empty((x.shape[0], len(cost)))
        for number, token in enumerate(x.double().cpu().numpy()):
            codes = program.solve(token, tolerance)
            if codes is None:
                kind = "" if self.signed else "non-negative "
                raise ExpanderError(f"Token {number} is not a combination of the columns with {kind}codes.")
            solved[number] = codes
        if self.signed:
            solved = solved[:, : matrix.shape[1] // 2] - solved[:, matrix.shape[1] // 2 :]
        sparse = Codes.from_dense(torch.from_numpy(solved).to(x))
        return sparse.values, sparse.indices
