"""The chord method for nonlinear boundary value problems: one factorisation serves many Newton steps."""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from algebraformer.kantorovich import Directions, LUDirection
from algebraformer.linalg import FloatArray
from algebraformer.problems.nonlinear import Jacobians

Indices = NDArray[np.int64]


class ChordDirection(LUDirection):
    """The first Jacobian's factors are used again for as long as every step halves the residual."""

    halvings = 0
    exact = False

    def __init__(self) -> None:
        self.factors: dict[int, tuple[FloatArray, Indices]] = {}

    def approximate(self, J: Jacobians, F: FloatArray, forcing: FloatArray, systems: Indices) -> Directions:
        """Return the steps of the factors that are there, or of new ones."""
        new = np.array([i not in self.factors for i in systems.tolist()])
        if new.any():
            self._factorise(J.take(new), systems[new])
        return dataclasses.replace(self._substituted(F, systems), factorisations=new.astype(np.int64))

    def lu(self, J: Jacobians, F: FloatArray, systems: Indices) -> Directions:
        """Factorise anew and return Newton's own steps."""
        self._factorise(J, systems)
        return dataclasses.replace(self._substituted(F, systems), factorisations=1)

    def _factorise(self, J: Jacobians, systems: Indices) -> None:
        for i, A in zip(systems.tolist(), J.dense(), strict=True):
            lu, pivots, _ = scipy.linalg.lapack.dgetrf(A)
            self.factors[i] = lu, pivots

    def _substituted(self, F: FloatArray, systems: Indices) -> Directions:
        d = np.array(
            [scipy.linalg.lapack.dgetrs(*self.factors[i], -f)[0] for i, f in zip(systems.tolist(), F, strict=True)]
        )
        return Directions(d, np.isfinite(d).all(axis=1))
