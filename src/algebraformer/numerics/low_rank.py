"""The inverses of a family in few numbers: scaled by the diagonal, a low rank and a few rows shared by all systems.

With scalings from the diagonal of A, see `LowRankBasis.read`, let Abar be the mean of the scaled matrices l2 A l1. What
is left to learn, E(A) = (l2 A l1)^-1 Abar - I, is small where the family is local and smooth, and the inverse is

    A^-1 is about M(A) = l1 (I + U C(A) V^T + sum_j diag(d_j(A)) H_j) Abar^-1 l2.

U and V (n, p) span the leading left and right singular vectors of E over the family, and row i of H_1 ... H_J (n, n)
holds the principal components of what the low rank leaves of row i of E. All four are the same for all systems: for a
differential equation of second order the low rank is the smooth part of Green's function, and the rows are its kink.

C and d are in turn principal components of the family,

    (C, d)(A) = (C, d)_0 + sum_r c_r(A) (C, d)_r,

orthonormal as matrices U C V^T + sum_j diag(d_j) H_j. So c is to these what it is to the dense operators of
`operator_basis`: a projection of E, predicted from the same entries, with the same loss. Nothing of size n^2 is formed
for any system, and all products with the shared matrices are products of two matrices.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

from algebraformer.arrays import namespace
from algebraformer.linalg import FloatArray
from algebraformer.numerics.entry_sampler import Entries, EntrySampler
from algebraformer.numerics.operator_basis import preconditioned_inverse
from algebraformer.numerics.preconditioner import Chosen, linear_combination, shared_matmul, to_scaled_float32
from algebraformer.numerics.shared_factors import Factors, PairAlgebra
from algebraformer.progress import batches

DIAGONAL_BLOCK = 16
"""Rows and columns that are asked for at a time where a matrix computes its entries on demand."""


@dataclasses.dataclass(frozen=True)
class LowRankBasis:
    """What `fit` learns of a family.

    Attributes
    ----------
    sampler : EntrySampler
    A_mean, inverse : ndarray, shape (n, n), float64
        Abar, whose entries are values of float32, and Abar^-1.
    scaling_range : ndarray, shape (2,)
        Least and largest Abar_ii s / A_ii that matrices are scaled by; (1, 1) where only s counts.
    factors : Factors
        U, V and H.
    operators : ndarray, shape (1 + R, p p + J n), float32
        C and d of the mean and of the components: C row by row, then d_1 ... d_J. Those of components are values of
        float16.
    coefficient_rms : ndarray, shape (R,), float64
        Root mean square over the family of c_r / ||I + E||_F, the weighted coefficients.
    scale : float
        Typical ||I + E||_F: the reciprocal root mean square of the weights 1 / ||I + E||_F.
    spectrum : ndarray, shape (S,), float64
        All singular values of the S weighted samples of U C V^T + sum_j diag(d_j) H_j, divided by sqrt(S).
    """

    sampler: EntrySampler
    A_mean: FloatArray
    inverse: FloatArray
    scaling_range: FloatArray
    factors: Factors
    operators: NDArray[np.float32]
    coefficient_rms: FloatArray
    scale: float
    spectrum: FloatArray

    @property
    def rank(self) -> int:
        """Number R of components."""
        return len(self.operators) - 1

    @property
    def components(self) -> NDArray[np.float32]:
        """(C, d)_1 ... (C, d)_R (R, p p + J n)."""
        return self.operators[1:]

    @functools.cached_property
    def rows(self) -> NDArray[np.float32]:
        """H_1 ... H_J (J, n, n)."""
        return self.factors.rows

    @functools.cached_property
    def algebra(self) -> PairAlgebra:
        """Linear algebra of (C, d), for training."""
        return PairAlgebra.of(self.factors)

    @functools.cached_property
    def T_mean(self) -> FloatArray:
        """I + E of the mean (n, n)."""
        return np.eye(len(self.A_mean)) + self.algebra.matrix(self.operators[0].astype(np.float64))

    def read(self, A: Entries) -> tuple[FloatArray, FloatArray]:
        """Return what a regression reads of matrices A (B, n, n), and what they are scaled by.

        Returns
        -------
        z : ndarray, shape (B, q, m)
            The entries that are read, z-scored.
        g : ndarray, shape (B, n)
            Abar_ii / A_ii, as far as `scaling_range` goes: l1 = sqrt(|g|) and l2 = sign(g) sqrt(|g|).
        """
        z, s = self.sampler(A)
        reference = namespace(self.A_mean).linalg.diagonal(self.A_mean)
        return z, scaling_of(diagonal_of(A, len(self.A_mean)), s, reference, self.scaling_range)

    def coefficients(self, A: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return z (B, q, m), coefficients c (B, R) and weights 1 / ||I + E|| (B,), by exact inverses of A (B, n, n).

        Raises
        ------
        LinAlgError
            A matrix is singular.
        """
        z, g = self.read(A)
        return z, *self.projected(self.preconditioned(A, g))

    def preconditioned(self, A: FloatArray, g: FloatArray) -> FloatArray:
        """Return T = I + E (B, n, n) of matrices A (B, n, n) with scalings g (B, n)."""
        return preconditioned_inverse(scaled(A, g), self.A_mean)

    def projected(self, T: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the coefficients (B, R) of T = I + E (B, n, n) and the weights (B,), 1 / ||T||."""
        c = self.algebra.products(T - self.T_mean) @ self.components.astype(np.float64).T
        return c, 1 / np.sqrt(self.squared_norm(T))

    def squared_norm(self, E: FloatArray) -> FloatArray:
        """Return ||E||^2 (B,) of errors E of T (B, n, n)."""
        return np.asarray(np.einsum("bij,bij->b", E, E))

    def inverse_of(self, c: NDArray[np.floating], g: FloatArray) -> LowRankInverse:
        """Return the approximate inverses of B matrices from coefficients c (B, R) and scalings g (B, n) of `read`."""
        (n, p), B = self.factors.U.shape, len(c)
        both = linear_combination(c, self.operators)
        return LowRankInverse(
            both[:, : p * p].reshape(B, p, p), both[:, p * p :].reshape(B, len(self.rows), n), g, self
        )


@dataclasses.dataclass(frozen=True)
class LowRankInverse:
    """M = l1 (I + U C V^T + sum_j diag(d_j) H_j) Abar^-1 l2 for B matrices: a linear map, like `ApproximateInverse`.

    Abar^-1 and I are applied in float64, and the rest in float32.

    Attributes
    ----------
    C : ndarray, shape (B, p, p), float32
    d : ndarray, shape (B, J, n), float32
    g : ndarray, shape (B, n)
        l1 = sqrt(|g|), l2 = sign(g) sqrt(|g|).
    basis : LowRankBasis
    """

    C: NDArray[np.float32]
    d: NDArray[np.float32]
    g: FloatArray
    basis: LowRankBasis

    def __call__(self, b: FloatArray) -> FloatArray:
        """Return M b (B, n, k) for right-hand sides b (B, n, k)."""
        return self.right(self.left(b))

    def left(self, r: FloatArray) -> FloatArray:
        """Return Abar^-1 l2 r (B, n, k): one product for all systems."""
        xp = namespace(r)
        return shared_matmul(self.basis.inverse, xp.copysign(xp.sqrt(xp.abs(self.g)), self.g)[:, :, None] * r)

    def right(self, g: FloatArray) -> FloatArray:
        """Return l1 (I + U C V^T + sum_j diag(d_j) H_j) g (B, n, k)."""
        unit, peak = to_scaled_float32(g)
        y = shared_matmul(self.basis.factors.U, self.C @ shared_matmul(self.basis.factors.V.T, unit))
        for j, H in enumerate(self.basis.rows):
            y += self.d[:, j, :, None] * shared_matmul(H, unit)
        xp = namespace(g)
        return xp.sqrt(xp.abs(self.g))[:, :, None] * (g + peak * y)

    def adjoint(self, v: FloatArray) -> FloatArray:
        """Return M^T v (B, n, k): l2 Abar^-T (I + V C^T U^T + sum_j H_j^T diag(d_j)) l1 v."""
        xp = namespace(v)
        root = xp.sqrt(xp.abs(self.g))
        u = root[:, :, None] * v
        unit, peak = to_scaled_float32(u)
        inner = self.C.mT @ shared_matmul(self.basis.factors.U.T, unit)
        y = shared_matmul(self.basis.factors.V, inner)
        for j, H in enumerate(self.basis.rows):
            y += shared_matmul(H.T, self.d[:, j, :, None] * unit)
        return xp.copysign(root, self.g)[:, :, None] * shared_matmul(self.basis.inverse.T, u + peak * y)

    def __getitem__(self, chosen: Chosen) -> LowRankInverse:
        """Return the inverses of the chosen systems of the batch."""
        return LowRankInverse(self.C[chosen], self.d[chosen], self.g[chosen], self.basis)


def diagonal_of(A: Entries, n: int) -> FloatArray:
    """Return the diagonals (B, n) of matrices that are an array, or compute blocks of entries on demand."""
    if isinstance(A, np.ndarray):
        return np.asarray(np.diagonal(A, axis1=1, axis2=2))
    if hasattr(A, "dtype"):
        return namespace(A).linalg.diagonal(A)
    parts = []
    for chosen in batches(n, DIAGONAL_BLOCK):
        i = np.arange(chosen.start, chosen.stop)
        parts.append(np.diagonal(A[:, i[:, None], i], axis1=1, axis2=2))
    return np.concatenate(parts, axis=1)


def scaling_of(diagonal: FloatArray, s: FloatArray, reference: FloatArray, limits: FloatArray) -> FloatArray:
    """Return reference / diagonal (B, n), what it is of matrices of size one within the limits; 1 / s if these are 1.

    Parameters
    ----------
    diagonal : ndarray, shape (B, n)
    s : ndarray, shape (B,)
        Sizes of the matrices, whose signs count only without limits.
    reference : ndarray, shape (n,)
    limits : ndarray, shape (2,)
    """
    xp = namespace(s)
    size = xp.where(s != 0, s, 1.0)[:, None]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if limits[0] == limits[1]:
            return xp.tile(1 / size, (1, len(reference)))
        size = xp.copysign(size, xp.sum(xp.sign(diagonal) * xp.sign(reference), axis=1, keepdims=True))
        quotient = reference * size / diagonal
        return xp.clip(xp.where(xp.isnan(quotient), limits[0], quotient), *limits) / size


def scaled(A: FloatArray, g: FloatArray) -> FloatArray:
    """Return l2 A l1 (B, n, n) for l1 = sqrt(|g|) and l2 = sign(g) sqrt(|g|), g (B, n)."""
    root = np.sqrt(np.abs(g))
    return np.copysign(root, g)[:, :, None] * A * root[:, None, :]
