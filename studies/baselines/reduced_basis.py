"""Reduced basis: solutions of a family lie near a space of few dimensions, and least squares finds the best of it.

With V an orthonormal basis of that space and L the inverse of the family's mean, a system costs O(n^2 r) for

    x = V y,   y = argmin ||L (b - A V y)||.

Its error cannot fall below the distance of x from the space. Unlike an approximate inverse it knows nothing of
right-hand sides, and so of residuals, other than the family's.

References
----------
.. [1] A. Quarteroni, A. Manzoni and F. Negri, "Reduced Basis Methods for Partial Differential Equations", Springer
   (2016), chapters 3 (least squares) and 6 (proper orthogonal decomposition).
"""

from __future__ import annotations

import dataclasses

import numpy as np

from algebraformer.linalg import FloatArray
from algebraformer.numerics.preconditioner import shared_matmul


@dataclasses.dataclass(frozen=True)
class ReducedBasis:
    """A space of solutions.

    Attributes
    ----------
    V : ndarray, shape (n, r)
        Orthonormal columns.
    inverse : ndarray, shape (n, n)
        L.
    """

    V: FloatArray
    inverse: FloatArray

    def __call__(self, A: FloatArray, b: FloatArray) -> FloatArray:
        """Return x = V y (B, n, k) for A (B, n, n) and b (B, n, k); `LinAlgError` where L A V is exactly singular."""
        Q, R = np.linalg.qr(shared_matmul(self.inverse, A @ self.V))
        y = np.linalg.solve(R, Q.transpose(0, 2, 1) @ shared_matmul(self.inverse, b))
        return np.asarray(self.V @ y)


def fit(x: FloatArray, inverse: FloatArray, rank: int) -> ReducedBasis:
    """Return the space of the first principal directions of solutions, each taken with norm one.

    Parameters
    ----------
    x : ndarray, shape (S, n)
        Solutions of a sample of the family.
    inverse : ndarray, shape (n, n)
        L.
    rank : int
        Number r of directions.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    >>> basis = fit(x, np.eye(3), rank=2)
    >>> basis(np.diag([1.0, 2.0, 3.0])[None], np.array([[[3.0], [4.0], [0.0]]])).ravel().round(12)
    array([3., 2., 0.])
    """
    size = np.linalg.norm(x, axis=1, keepdims=True)
    unit = x / np.where(size > 0, size, 1.0)
    _, vectors = np.linalg.eigh(unit.T @ unit)
    return ReducedBasis(np.ascontiguousarray(vectors[:, ::-1][:, :rank]), inverse)
