"""Two-level preconditioning with a basis of the family's solutions as coarse space.

Trunk-basis preconditioners take the coarse space from the trunk of a DeepONet, whose functions span the solutions of a
family, and leave to a smoother what is outside it [1]_. Here V (n x k) holds the principal components of solutions, the
best such basis in the mean. One application, coarse space first, is

    g = C r,   M r = g + S (r - A g),   C = V (V^T A V)^-1 V^T,

S being the smoother: Jacobi's, or the inverse of the family's mean scaled by diagonals, which is our addition. Coarse
equations that are tested with V divided by the diagonal of A, or solved by least squares, did no better (LOG.md,
2026-11-27).

References
----------
.. [1] A. Kopanicakova and G. E. Karniadakis, "DeepOnet based preconditioning strategies for solving parametric linear
   systems of equations", arXiv:2401.02016 (2024).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from algebraformer.linalg import FloatArray
from algebraformer.numerics.preconditioner import Chosen, shared_matmul
from algebraformer.rivals.iterative import ScaledMeanInverse

DAMPING = 2 / 3
"""Of Jacobi's method, the usual choice for a smoother."""


@dataclasses.dataclass(frozen=True)
class Jacobi:
    """S = omega / diag(A) for B matrices.

    Attributes
    ----------
    scale : ndarray, shape (B, n, 1)
    """

    scale: FloatArray

    @classmethod
    def of(cls, A: FloatArray) -> Jacobi:
        """Return the smoother of the matrices A (B, n, n)."""
        return cls(DAMPING / np.diagonal(A, axis1=1, axis2=2)[:, :, None])

    def left(self, r: FloatArray) -> FloatArray:
        """Return r (B, n, k)."""
        return r

    def residual(self, g: FloatArray) -> FloatArray:
        """Return r (B, n, k) from g = L r."""
        return g

    def right(self, g: FloatArray) -> FloatArray:
        """Return S g (B, n, k)."""
        return self.scale * g

    def __getitem__(self, chosen: Chosen) -> Jacobi:
        """Return the smoother of the chosen systems."""
        return Jacobi(self.scale[chosen])


@dataclasses.dataclass(frozen=True)
class ScaledMean:
    """S = diag(l) Abar^-1 diag(l) for B matrices, applied as R = diag(l) and L = Abar^-1 diag(l).

    Attributes
    ----------
    inverse : ScaledMeanInverse
        S.
    A_mean : ndarray, shape (n, n), float64
        Abar.
    """

    inverse: ScaledMeanInverse
    A_mean: FloatArray

    def left(self, r: FloatArray) -> FloatArray:
        """Return L r (B, n, k)."""
        return self.inverse.left(r)

    def residual(self, g: FloatArray) -> FloatArray:
        """Return r (B, n, k) from g = L r."""
        return shared_matmul(self.A_mean, g) / self.inverse.l

    def right(self, g: FloatArray) -> FloatArray:
        """Return R g (B, n, k)."""
        return self.inverse.right(g)

    def __getitem__(self, chosen: Chosen) -> ScaledMean:
        """Return the smoother of the chosen systems."""
        return ScaledMean(self.inverse[chosen], self.A_mean)


@dataclasses.dataclass(frozen=True)
class TwoLevel:
    """M = C + S (I - A C) for B matrices, with the smoother S = R L; residuals are measured after L.

    Attributes
    ----------
    smoother : Jacobi or ScaledMean
    V : ndarray, shape (n, k)
    AV : ndarray, shape (B, n, k)
    coarse : ndarray, shape (B, k, k)
        (V^T A V)^-1.
    """

    smoother: Jacobi | ScaledMean
    V: FloatArray
    AV: FloatArray
    coarse: FloatArray

    @classmethod
    def of(cls, A: FloatArray, V: FloatArray, smoother: Jacobi | ScaledMean) -> TwoLevel:
        """Return M for the matrices A (B, n, n); `LinAlgError` where V^T A V is singular."""
        AV = A @ V
        return cls(smoother, V, AV, np.asarray(np.linalg.inv(V.T @ AV), dtype=np.float64))

    def left(self, r: FloatArray) -> FloatArray:
        """Return L r (B, n, k)."""
        return self.smoother.left(r)

    def right(self, g: FloatArray) -> FloatArray:
        """Return M r (B, n, k) from g = L r."""
        y = self.coarse @ shared_matmul(self.V.T, self.smoother.residual(g))
        return shared_matmul(self.V, y) + self.smoother.right(g - self.smoother.left(self.AV @ y))

    def __getitem__(self, chosen: Chosen) -> TwoLevel:
        """Return the preconditioner of the chosen systems."""
        return TwoLevel(self.smoother[chosen], self.V, self.AV[chosen], self.coarse[chosen])
