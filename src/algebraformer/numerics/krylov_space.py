"""The space that generalised conjugate residuals span: directions, and their images made orthonormal.

The directions are the residuals as they come, and what makes their images orthonormal is kept in triangular form [1]_:
so one family of vectors is orthogonalised instead of three, and x is put together once.

References
----------
.. [1] P. Jiranek, M. Rozloznik and M. H. Gutknecht, "How to make simpler GMRES and GCR more stable", SIAM J. Matrix
   Anal. Appl. 30 (2008).
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from algebraformer.arrays import namespace, real
from algebraformer.linalg import FloatArray


class KrylovSpace:
    """Directions z_j, their images w_j = L A z_j made orthonormal, L A z_j = sum_i h_ij w_i, and the alpha_j."""

    def __init__(self) -> None:
        self.Z: list[FloatArray] = []  # (B, n, k) each, and so are V and W
        self.V: list[FloatArray] = []
        self.W: list[FloatArray] = []
        self.H: list[list[FloatArray]] = []  # h_1j ... h_jj (B, 1, k)
        self.alpha: list[FloatArray] = []  # (B, 1, k)

    def add(self, z: FloatArray, v: FloatArray | None, w: FloatArray) -> tuple[FloatArray | None, FloatArray]:
        """Take in a direction, and return its image w, orthonormalised, and v with it, where that is wanted."""
        column = []
        for j, Wj in enumerate(self.W):
            h = dot(Wj, w)
            w = w - h * Wj
            v = None if v is None else v - h * self.V[j]
            column.append(h)
        size = length(w)
        xp = namespace(w)
        scale = xp.where(size > 0, 1 / xp.where(size > 0, size, 1.0), 0.0)
        w = w * scale
        self.Z, self.W, self.H = [*self.Z, z], [*self.W, w], [*self.H, [*column, size]]
        if v is not None:
            v = v * scale
            self.V = [*self.V, v]
        return v, w

    def combination(self) -> FloatArray:
        """Return sum_j y_j z_j with H y = alpha: what reduces g to g - sum_j alpha_j w_j."""
        xp, y = namespace(self.Z[0]), list(self.alpha)
        total: Any = 0.0
        for j in reversed(range(len(y))):
            size = self.H[j][j]
            y[j] = xp.where(size > 0, y[j] / xp.where(size > 0, size, 1.0), 0.0)
            for i in range(j):
                y[i] = y[i] - self.H[j][i] * y[j]
            total = total + y[j] * self.Z[j]
        return cast("FloatArray", total)

    def __getitem__(self, chosen: NDArray[np.int64]) -> KrylovSpace:
        """Return the spaces of the chosen systems."""
        space = KrylovSpace()
        space.Z, space.V, space.W = ([part[chosen] for part in parts] for parts in (self.Z, self.V, self.W))
        space.H = [[h[chosen] for h in column] for column in self.H]
        space.alpha = [part[chosen] for part in self.alpha]
        return space


def dot(u: FloatArray, v: FloatArray) -> FloatArray:
    """Return <u, v> over axis 1 (B, 1, k), with conj(u) where u is complex."""
    xp = namespace(u)
    return xp.vecdot(u.mT, v.mT)[:, None, :]


def length(v: FloatArray) -> FloatArray:
    """Return the Euclidean norm over axis 1, (B, 1, k): faster than `linalg.norm`, for vectors of moderate size."""
    return namespace(v).sqrt(real(dot(v, v)))
