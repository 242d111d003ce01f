"""What heads return: what was read of matrices, for refinement, and estimates from noisy systems."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.numerics import gcr
from algebraformer.numerics.forward_error import MAX_DEFECT
from algebraformer.numerics.preconditioner import LinearInverse, Preconditioner, TransposedInverse


@dataclasses.dataclass(frozen=True)
class MatrixReading:
    """What a head has read of B matrices: all that refinement needs, whatever the right-hand sides are.

    Attributes
    ----------
    A : ndarray, shape (B, n, n), float64 or complex128
    in_distribution : ndarray of bool, shape (B,)
        Which matrices look like the family, by A alone.
    answer : callable
        answer(A, b) -> x (B, n, k) for b (B, n, k).
    inverse : LinearInverse, optional
        The approximate inverses M, if the head is linear in b.
    defect : ndarray, shape (B,), optional
        Share of a random probe vector that M A leaves, see `numerics.gcr.probe_defect`: below one only if all entries
        of A are finite. With both, answers are refined by conjugate residuals, without by asking `answer` about the
        residual.
    max_defect : float
        Largest share of a probe, or of the first residual, that is left of matrices in distribution.
    preconditioner : Preconditioner, optional
        Approximate inverses that have no adjoints and take a pass of the network for each product. With them, too,
        answers are refined by conjugate residuals.
    """

    A: FloatArray
    in_distribution: NDArray[np.bool_]
    answer: Callable[[FloatArray, FloatArray], FloatArray]
    inverse: LinearInverse | None = None
    defect: FloatArray | None = None
    max_defect: float = 0.0
    preconditioner: Preconditioner | None = None

    def __len__(self) -> int:
        return len(self.A)

    def __getitem__(self, chosen: NDArray[np.int64]) -> Self:
        """Return what was read of the chosen matrices."""
        return dataclasses.replace(
            self,
            A=self.A[chosen],
            in_distribution=self.in_distribution[chosen],
            inverse=None if self.inverse is None else self.inverse[chosen],
            defect=None if self.defect is None else self.defect[chosen],
            preconditioner=None if self.preconditioner is None else self.preconditioner[chosen],
        )

    def transposed(self) -> Self:
        """Return the reading of the transposes, of a head that is linear in b: they are in distribution where A is.

        Right-hand sides of A^T are not those of the family, so that first residuals are held to MAX_DEFECT alone.

        Raises
        ------
        ConfigurationError
            There is no approximate inverse: the head is not linear in b.
        """
        if self.inverse is None:
            raise ConfigurationError("what was read of A holds no approximate inverse, and so none of its transpose")
        A, inverse = self.A.mT, TransposedInverse(self.inverse)
        if isinstance(A, np.ndarray):
            A = np.ascontiguousarray(A)
        defect = gcr.probe_defect(A, inverse)
        return type(self)(A, self.in_distribution, lambda A, b: inverse(b), inverse, defect, MAX_DEFECT)

    def predict(self, b: FloatArray) -> FloatArray:
        """Return the bare answers x (B, n, k) for right-hand sides b (B, n, k)."""
        return self.answer(self.A, b)


class Estimates(NamedTuple):
    """Estimates of B noisy systems."""

    mean: FloatArray
    """(B, n)"""
    std: FloatArray
    """Calibrated standard deviations (B, n)."""
    noise: FloatArray
    """Relative noise levels (B,)."""
    in_distribution: NDArray[np.bool_]
    """Which systems (B,) look like the family."""
