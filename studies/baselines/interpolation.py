"""Interpolation of inverse operators: stored ones, combined anew for every system by a small least-squares problem.

With operators T_1 ... T_R and Abar as in `operator_basis`, M = (T_0 + sum_i lambda_i T_i) Abar^-1 / s, and

    lambda = argmin ||(I - M A) Omega||_F,

Omega a random matrix of k columns, which stands for the whole Frobenius norm. This needs A alone: no exact inverse
and no network. The T_i are either inverses of snapshots A_i, T_i = A_i^-1 Abar and T_0 = 0, as in the reference, or the
components of an `OperatorBasis` with T_0 its mean: then this is the operator head, its network replaced by projection.

References
----------
.. [1] O. Zahm and A. Nouy, "Interpolation of inverse operators for preconditioning parameter-dependent equations",
   SIAM J. Sci. Comput. 38 (2016), A1044-A1074.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray
from algebraformer.numerics.entry_sampler import EntrySampler
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.numerics.preconditioner import ApproximateInverse, linear_combination, shared_matmul

DAMPING = 1e-7
"""Rows of this size, relative to the operators, below the least-squares problem: they keep operators that depend on
each other, as far as float32 can tell, from large coefficients of opposite signs."""
ENTRIES = 2**25
"""Numbers of the least-squares problems that are in memory at once."""


@dataclasses.dataclass(frozen=True)
class InverseInterpolation:
    """Operators to combine, and the sketch that the combination is judged by.

    Attributes
    ----------
    operators : ndarray, shape (1 + R, n, n), float32
        T_0, whose coefficient is one, and T_1 ... T_R.
    inverse : ndarray, shape (n, n), float64
        Abar^-1.
    sampler : EntrySampler
        Gives the size s of a matrix.
    sketch : ndarray, shape (n, k)
        Omega.
    """

    operators: NDArray[np.float32]
    inverse: FloatArray
    sampler: EntrySampler
    sketch: FloatArray

    def __call__(self, A: FloatArray) -> ApproximateInverse:
        """Return the best M for each of the matrices A (B, n, n)."""
        s = self.sampler(A)[1]
        s = np.where(s != 0, s, 1.0)
        c = np.empty((len(A), len(self.operators) - 1), dtype=np.float32)
        step = max(1, ENTRIES // (len(self.operators) * self.sketch.size))
        for i in range(0, len(A), step):
            c[i : i + step] = self._coefficients(A[i : i + step] / s[i : i + step, None, None])
        flat = linear_combination(c, self.operators.reshape(len(self.operators), -1))
        return ApproximateInverse(flat.reshape(A.shape), self.inverse, s)

    def _coefficients(self, A: FloatArray) -> FloatArray:
        """Return lambda (B, R) for matrices of size one, by QR without Q: the right-hand side is one more column."""
        p, n, _ = self.operators.shape
        B, k = len(A), self.sketch.shape[1]
        G = shared_matmul(self.inverse, A @ self.sketch)  # (B, n, k)
        columns = G.transpose(1, 0, 2).reshape(n, B * k).astype(np.float32)
        images = (self.operators.reshape(p * n, n) @ columns).reshape(p, n, B, k).transpose(2, 1, 3, 0)  # (B, n, k, p)
        size = np.sqrt(np.mean(np.sum(images[..., 1:].astype(np.float64) ** 2, axis=(1, 2)), axis=1))  # (B,)
        stacked = np.zeros((B, n * k + p - 1, p))
        stacked[:, : n * k, :-1] = images[..., 1:].reshape(B, n * k, p - 1)
        stacked[:, : n * k, -1] = (self.sketch - images[..., 0]).reshape(B, n * k)
        free = np.arange(p - 1)
        stacked[:, n * k + free, free] = DAMPING * np.where(size > 0, size, 1.0)[:, None]
        R = np.asarray(np.linalg.qr(stacked, mode="r"))  # (B, p, p)
        return np.asarray(np.linalg.solve(R[:, :-1, :-1], R[:, :-1, -1:])[:, :, 0])


def of_basis(basis: OperatorBasis, columns: int, seed: int) -> InverseInterpolation:
    """Return the interpolation with mean and components of a basis, and a Gaussian sketch of so many columns."""
    return InverseInterpolation(
        basis.operators, basis.inverse, basis.sampler, sketch(len(basis.inverse), columns, seed)
    )


def of_snapshots(
    basis: OperatorBasis, T: NDArray[np.floating], count: int, columns: int, seed: int
) -> InverseInterpolation:
    """Return the interpolation of exact inverses, chosen from a sample.

    Parameters
    ----------
    basis : OperatorBasis
        Gives Abar and the sampler.
    T : ndarray, shape (S, n, n)
        A^-1 Abar of matrices A of size one.
    count : int
        Number of snapshots, at most S.
    columns : int
        Number k of columns of the sketch.
    seed : int
    """
    flat = T.reshape(len(T), -1)
    flat = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    chosen = flat[pivots(flat, count)].astype(np.float32)
    operators = np.concatenate((np.zeros_like(chosen[:1]), chosen)).reshape(-1, *T.shape[1:])
    return InverseInterpolation(operators, basis.inverse, basis.sampler, sketch(T.shape[-1], columns, seed))


def sketch(n: int, columns: int, seed: int) -> FloatArray:
    """Return Omega (n, k): normal entries of variance 1 / k, so that ||X Omega||_F^2 is ||X||_F^2 in the mean."""
    return np.random.default_rng(seed).standard_normal((n, columns)) / np.sqrt(columns)


def pivots(rows: NDArray[np.floating], count: int) -> NDArray[np.int64]:
    """Return the greedy choice of `count` rows: always the one furthest from the span of those before.

    This is QR with column pivoting of the transpose, by a Cholesky factorisation of the Gram matrix of which only the
    rows that are needed are computed.

    Examples
    --------
    >>> import numpy as np
    >>> pivots(np.array([[1.0, 0.0], [3.0, 0.0], [1.0, 2.0]]), 2)
    array([1, 2])
    """
    left_over = np.sum(rows.astype(np.float64) ** 2, axis=1)
    L = np.zeros((len(rows), count))
    chosen = np.zeros(count, dtype=np.int64)
    for j in range(count):
        chosen[j] = p = int(np.argmax(left_over))
        if left_over[p] > 0:  # otherwise the rows before span all others, but for rounding
            L[:, j] = (rows @ rows[p] - L[:, :j] @ L[p, :j]) / np.sqrt(left_over[p])
            left_over = left_over - L[:, j] ** 2
        left_over[p] = -np.inf
    return chosen
