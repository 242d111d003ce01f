"""Refinement with the inverse of a family's mean, which learns nothing: as it is, and scaled by diagonals.

The mean matrix Abar, factorised once, preconditions every system of the family. Scaled by what can be read off A,

    M = diag(l) Abar^-1 diag(l),   l = sqrt(|diag(Abar) / diag(A)|),

it is exact for A = D Abar D with diagonal D, and a strong preconditioner for elliptic equations with a variable
coefficient. M is symmetric and positive definite where Abar is.

References
----------
.. [1] P. Concus and G. H. Golub, "Use of fast direct methods for the efficient numerical solution of nonseparable
   elliptic equations", SIAM J. Numer. Anal. 10 (1973): the scaling.
.. [2] M. R. Hestenes and E. Stiefel, "Methods of conjugate gradients for solving linear systems", J. Res. Nat. Bur.
   Standards 49 (1952).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from algebraformer.linalg import EPS, FloatArray
from algebraformer.numerics import gcr
from algebraformer.numerics.gcr import RESIDUAL_SAFETY, RESTARTS, RefinedSolution
from algebraformer.numerics.preconditioner import Chosen, MeanInverse, Preconditioner, shared_matmul
from algebraformer.passes import multiply
from algebraformer.rivals.direct import lu
from algebraformer.rivals.pool import Array, Solve

MAX_REFINEMENTS = 60
"""Most refinements; a factorisation is faster than as many."""
FLOOR = 32.0
"""<r, M r> at which conjugate gradients end, in (n eps)^2 of that of x = 0: the largest power of two with which every
system of a family of kernel matrices (n = 256) was certified without a restart; with 0.5 they take 29 steps, not 27."""

Inverse = Callable[[FloatArray], Preconditioner]
Start = Callable[[FloatArray, FloatArray], FloatArray]


@dataclasses.dataclass(frozen=True)
class ScaledMeanInverse:
    """M = diag(l) Abar^-1 diag(l) for B matrices, applied as R = diag(l) and L = Abar^-1 diag(l).

    Attributes
    ----------
    inverse : ndarray, shape (n, n), float64
        Abar^-1.
    l : ndarray, shape (B, n, 1)
    """

    inverse: FloatArray
    l: FloatArray

    @classmethod
    def of(cls, A: FloatArray, mean_diagonal: FloatArray, inverse: FloatArray) -> ScaledMeanInverse:
        """Return M for the matrices A (B, n, n) from the diagonal (n,) and the inverse of Abar."""
        diagonal = np.diagonal(A, axis1=1, axis2=2)
        with np.errstate(divide="ignore", invalid="ignore"):
            return cls(inverse, np.sqrt(np.abs(mean_diagonal / diagonal))[:, :, None])

    def left(self, r: FloatArray) -> FloatArray:
        """Return Abar^-1 diag(l) r (B, n, k)."""
        return shared_matmul(self.inverse, self.l * r)

    def right(self, g: FloatArray) -> FloatArray:
        """Return diag(l) g (B, n, k)."""
        return self.l * g

    def __getitem__(self, chosen: Chosen) -> ScaledMeanInverse:
        """Return the preconditioner of the chosen systems."""
        return ScaledMeanInverse(self.inverse, self.l[chosen])


def refined(inverse: Inverse, start: Start | None = None, rtol: float | None = None, fallback: bool = True) -> Solve:
    """Return the whole way of a method: approximate inverse, conjugate residuals, certificate, LU for what misses it.

    Parameters
    ----------
    inverse : callable
        Takes A (B, n, n) to an approximation of its inverse.
    start : callable, optional
        Returns the first answer (B, n, k) from A and b (B, n, k); M b if None.
    rtol : float, optional
        Tolerance of the certificate, see `linalg.is_certified`.
    fallback : bool
        Solve what is not certified by LU.
    """

    def solve(A: Array, b: Array) -> Array:
        columns = b[:, :, None]
        x0 = start(A, columns) if start else None
        M = inverse(A)
        solution = gcr.gcr_restarted(A, columns, M, rtol, MAX_REFINEMENTS, x0, stagnation_factor=1.0)
        return _answers(A, b, solution, fallback)

    return solve


def mean_inverse(inverse: FloatArray, rtol: float | None = None) -> Solve:
    """Return conjugate residuals with Abar^-1 (n, n)."""
    M = MeanInverse(inverse)
    return refined(lambda A: M, rtol=rtol)


def scaled_mean_inverse(mean_diagonal: FloatArray, inverse: FloatArray, rtol: float | None = None) -> Solve:
    """Return conjugate residuals with `ScaledMeanInverse`."""
    return refined(lambda A: ScaledMeanInverse.of(A, mean_diagonal, inverse), rtol=rtol)


def scaled_conjugate_gradients(mean_diagonal: FloatArray, inverse: FloatArray, rtol: float | None = None) -> Solve:
    """Return conjugate gradients with `ScaledMeanInverse`, for positive definite matrices and mean."""

    def solve(A: Array, b: Array) -> Array:
        M = ScaledMeanInverse.of(A, mean_diagonal, inverse)
        return _answers(A, b, conjugate_gradients(A, b[:, :, None], M, rtol, MAX_REFINEMENTS), fallback=True)

    return solve


def _answers(A: Array, b: Array, solution: RefinedSolution, fallback: bool) -> Array:
    """Return x (B, n); of systems that are not certified by LU, if there is a fallback."""
    x = solution.x[:, :, 0]
    if fallback:
        for i in np.flatnonzero(~solution.certified):
            x[i] = lu(A[i], b[i])
    return x


def conjugate_gradients(
    A: FloatArray, b: FloatArray, M: Preconditioner, rtol: float | None, maxiter: int
) -> RefinedSolution:
    """Solve A x = b for positive definite A and M by conjugate gradients, restarted from the true residual.

    Parameters
    ----------
    A : ndarray, shape (B, n, n)
    b : ndarray, shape (B, n, 1)
    M : Preconditioner
    rtol : float or None
        Tolerance of the certificate, see `linalg.is_certified`.
    maxiter : int
        Largest number of products with A in each run; a system that needs more is left.
    """
    largest = np.abs(b).max(axis=1, keepdims=True, initial=0.0)
    _, exponent = np.frexp(np.where(largest > 0, largest, 1.0))
    unit = np.ldexp(1.0, exponent - 1)  # (B, 1, 1): exact, and squares stay within float64

    solution = RefinedSolution.measured(A, b, np.zeros_like(b), rtol)
    with np.errstate(all="ignore"):
        # What <r, M r> and <r, r>, which fall as the square of r, have to reach.
        right = b / unit
        floor = (FLOOR * b.shape[1] * EPS) ** 2 * _dot(right, M.right(M.left(right)))
        enough = (RESIDUAL_SAFETY * (rtol or 0.0)) ** 2 * _dot(right, right)
        going = ~solution.certified
        for _ in range(1 + RESTARTS):
            active = np.flatnonzero(going)
            if not active.size:
                break
            r = solution.measures.residual[active] / unit[active]
            step, ended = _one_run(A, active, r, M[active], floor[active], enough[active], maxiter)
            new = RefinedSolution.measured(A, b[active], solution.x[active] + step * unit[active], rtol, active)
            better = new.certified | (new.backward_error < solution.backward_error[active])
            solution.assign(active[better], new, better)
            going[active] = ended & better & ~new.certified
    return solution


def _one_run(
    A: FloatArray,
    rows: NDArray[np.int64],
    r: FloatArray,
    M: Preconditioner,
    floor: FloatArray,
    enough: FloatArray,
    maxiter: int,
) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Return x (C, n, 1) with A[rows] x near r, until <r, M r> is at most `floor` (C, 1, 1) or <r, r> `enough`.

    Also whether it came to that, (C,).
    """
    x, active, ended = np.zeros_like(r), np.arange(len(r)), np.zeros(len(r), dtype=bool)
    z = M.right(M.left(r))
    rho, p = _dot(r, z), z
    for _ in range(maxiter):
        v = multiply(A, rows, p)
        alpha = rho / _dot(p, v)
        alpha = np.where(np.isfinite(alpha), alpha, 0.0)
        x[active] += alpha * p
        r = r - alpha * v

        z = M.right(M.left(r))
        previous, rho = rho, _dot(r, z)
        going = ((rho > floor) & (_dot(r, r) > enough) & (alpha > 0))[:, 0, 0]
        ended[active] = ~going
        if not going.any():
            break
        p = z + rho / previous * p
        if 2 * going.sum() <= going.size:  # at least half of the batch is done: go on with the rest
            chosen = np.flatnonzero(going)
            active, rows, M = active[chosen], rows[chosen], M[chosen]
            r, p, rho, floor, enough = r[chosen], p[chosen], rho[chosen], floor[chosen], enough[chosen]
    return x, ended


def _dot(u: FloatArray, v: FloatArray) -> FloatArray:
    """Return the scalar products over axis 1, (B, 1, 1)."""
    return np.sum(u * v, axis=1, keepdims=True)
