"""Matrices E = U C V^T + sum_j diag(d_j) H_j, U, V and H shared by a family: how these are found, and C and d.

`numerics.low_rank` says what for.

References
----------
.. [1] N. Halko, P. G. Martinsson and J. A. Tropp, "Finding structure with randomness", SIAM Rev. 53 (2011).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray
from algebraformer.progress import batches

SWEEPS = 6
"""Times that the low rank and the rows are computed, each from what the other leaves."""
SKETCH = 32
"""Random vectors that each E is multiplied by for U and V: of hundreds of samples, thousands in all."""
OVERSAMPLING, POWER_STEPS = 4, 4
"""Of the subspace iteration for the rows [1]_."""
ROW_LEVELS = 127
"""Rows H are whole multiples of 1 / 127 of their largest entry: what they stand for is small, and their coefficients
are known to a few per cent. 16 bits take no product less, and four of them at n = 1024 take 8 MB instead of 4."""
SOLVE_SWEEPS = 8
"""Gauss-Seidel sweeps between C and d. Components are those of the C and d that are found, and coefficients are
projections of E itself, so that the last digits of a fit do not matter."""
BLOCK_ENTRIES = 2**25
"""Entries of E that are worked on at a time, 128 MB in float32."""


class Factors(NamedTuple):
    """U, V and H, these in 8 bits."""

    U: NDArray[np.float32]
    """(n, p), with orthonormal columns."""
    V: NDArray[np.float32]
    """(n, p), likewise."""
    row_levels: NDArray[np.int8]
    """(J, n, n)"""
    row_scales: NDArray[np.float32]
    """(J, n): row i of H_j is row_scales[j, i] row_levels[j, i]."""

    @property
    def rows(self) -> NDArray[np.float32]:
        """H_1 ... H_J (J, n, n)."""
        return self.row_scales[:, :, None] * self.row_levels


def fit_factors(E: NDArray[np.float32], p: int, n_rows: int) -> Factors:
    """Return the shared factors of a sample of a family.

    Row i of H_1 ... H_J holds the principal components of row i of what the low rank leaves, and U and V span the
    leading singular vectors, on either side, of what the rows leave. A matrix counts by 1 / ||I + E||^2.

    Parameters
    ----------
    E : ndarray, shape (N, n, n), float32
    p : int
    n_rows : int
        The number J.
    """
    N, n, _ = E.shape
    rng = np.random.default_rng(0)
    size = np.einsum("bij,bij->b", E, E) + 2 * np.trace(E, axis1=1, axis2=2) + n
    root = (1 / np.sqrt(np.maximum(size, np.finfo(np.float32).tiny))).astype(np.float32)[:, None, None]
    rows = np.zeros((n_rows, n, n), dtype=np.float32)
    U = V = np.zeros((n, p), dtype=np.float32)

    for _ in range(SWEEPS if n_rows else 1):
        # 1. U and V from products of what the rows leave with random vectors, on both sides.
        left, right = np.zeros((n, n)), np.zeros((n, n))
        for part in batches(N, max(1, BLOCK_ENTRIES // n**2)):
            F = E[part.start : part.stop]
            if U.any():
                d = _row_products(F - (U @ (U.T @ F @ V) @ V.T), rows)
                F = F - np.einsum("bji,jik->bik", d, rows, optimize=True)
            F = root[part.start : part.stop] * F
            vectors = rng.standard_normal((2, n, min(n, SKETCH))).astype(np.float32)
            for total, products in ((left, F @ vectors[0]), (right, F.swapaxes(1, 2) @ vectors[1])):
                columns = products.transpose(1, 0, 2).reshape(n, -1)
                total += columns @ columns.T
        U, V = (np.linalg.eigh(total)[1][:, ::-1][:, :p].astype(np.float32) for total in (left, right))

        # 2. The rows of H, from what the low rank leaves of the rows of all samples.
        if n_rows:
            core = U.T @ E @ V  # (N, p, p)
            for block in batches(n, max(1, BLOCK_ENTRIES // (N * n))):
                i = slice(block.start, block.stop)
                G = root * (E[:, i] - U[i] @ core @ V.T)
                rows[:, i] = _leading(G.transpose(1, 0, 2), n_rows, rng).transpose(1, 0, 2)

    scales = np.abs(rows).max(axis=2, initial=0.0) / np.float32(ROW_LEVELS)
    levels = np.rint(rows / np.where(scales > 0, scales, 1.0)[:, :, None])
    return Factors(U, V, levels.astype(np.int8), scales)


def _row_products(E: NDArray[np.floating], rows: NDArray[np.float32]) -> NDArray[np.floating]:
    """Return <row i of E, row i of H_j> (B, J, n) of E (B, n, n)."""
    return np.stack([np.einsum("bik,ik->bi", E, H) for H in rows], axis=1)


def _leading(G: NDArray[np.float32], count: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the leading right singular vectors (r, count, n) of matrices G (r, N, n), by subspace iteration [1]_."""
    width = min(count + OVERSAMPLING, *G.shape[1:])
    Y = rng.standard_normal((len(G), G.shape[2], width)).astype(np.float32)
    for _ in range(POWER_STEPS):
        Y = np.linalg.qr(G.swapaxes(1, 2) @ (G @ Y)).Q
    _, _, Vt = np.linalg.svd(G @ Y, full_matrices=False)
    found = np.zeros((len(G), count, G.shape[2]), dtype=np.float32)
    found[:, :width] = (Vt @ Y.swapaxes(1, 2))[:, :count]
    return found


@dataclasses.dataclass(frozen=True)
class PairAlgebra:
    """Linear algebra of the pairs (C, d), each an array of p p + J n numbers: C row by row, then d_1 ... d_J.

    Attributes
    ----------
    U, V : ndarray, shape (n, p)
    rows : ndarray, shape (J, n, n)
    cross : ndarray, shape (J n, p p)
        <U C V^T, diag(d) H> = d cross C.
    row_gram : ndarray, shape (n, J, J)
        <row i of H_j, row i of H_k>.
    """

    U: FloatArray
    V: FloatArray
    rows: FloatArray
    cross: FloatArray
    row_gram: FloatArray

    @classmethod
    def of(cls, factors: Factors) -> Self:
        """Return them for shared factors."""
        left, right, H = (part.astype(np.float64) for part in (factors.U, factors.V, factors.rows))
        cross = np.einsum("ia,jib->jiab", left, H @ right).reshape(len(H) * len(left), left.shape[1] ** 2)
        return cls(left, right, H, cross, np.einsum("jik,lik->ijl", H, H, optimize=True))

    def products(self, E: FloatArray) -> FloatArray:
        """Return the products (B, p p + J n) of E (B, n, n) with what each number of (C, d) stands for."""
        B = len(E)
        rows = [np.einsum("bik,ik->bi", E, H) for H in self.rows]
        return np.concatenate(((self.U.T @ (E @ self.V)).reshape(B, -1), *rows), axis=1)

    def matrix(self, pair: FloatArray) -> FloatArray:
        """Return U C V^T + sum_j diag(d_j) H_j (n, n) for one pair (p p + J n,)."""
        n, p = self.U.shape
        C, d = pair[: p * p].reshape(p, p), pair[p * p :].reshape(len(self.rows), n)
        return self.U @ C @ self.V.T + np.sum(d[:, :, None] * self.rows, axis=0)

    def gram(self, pairs: FloatArray) -> FloatArray:
        """Return these products for the matrices that pairs (B, p p + J n) stand for."""
        C, d = self._split(pairs)
        own = np.einsum("ijl,bli->bji", self.row_gram, self._by_row(d)).reshape(d.shape)
        return np.concatenate((C + d @ self.cross, own + C @ self.cross.T), axis=1)

    def solve(self, products: FloatArray) -> FloatArray:
        """Return the pairs (B, p p + J n) with these products: the best approximations, by Gauss-Seidel sweeps."""
        target, row_target = self._split(products)
        inverse = np.linalg.pinv(self.row_gram, hermitian=True)
        C, d = target, np.zeros_like(row_target)
        for _ in range(SOLVE_SWEEPS if len(self.rows) else 0):
            left = self._by_row(row_target - C @ self.cross.T)
            d = np.einsum("ijl,bli->bji", inverse, left).reshape(d.shape)
            C = target - d @ self.cross
        return np.concatenate((C, d), axis=1)

    def _split(self, pairs: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return C (B, p p) and d (B, J n)."""
        size = self.V.shape[1] ** 2
        return pairs[:, :size], pairs[:, size:]

    def _by_row(self, d: FloatArray) -> FloatArray:
        """Return d (B, J n) as (B, J, n)."""
        return d.reshape(len(d), len(self.rows), len(self.U))
