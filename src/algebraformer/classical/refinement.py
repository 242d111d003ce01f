"""Refinement until the certificate holds, with any approximate inverse, plain or accelerated, and how fast that is."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from algebraformer.classical import conjugate_residuals
from algebraformer.classical.conjugate_residuals import SLOW, Preconditioner
from algebraformer.linalg import FloatArray, is_certified, measures

RESTARTS = 2
"""How often accelerated refinement starts again from the true residual."""


@dataclasses.dataclass(frozen=True)
class Refined:
    """Answers to B systems.

    Attributes
    ----------
    x : ndarray, shape (B, n, k)
    refinements : ndarray of int, shape (B,)
        Corrections of the first answer.
    certified : ndarray of bool, shape (B,)
        See `linalg.is_certified`; from the true residual.
    """

    x: FloatArray
    refinements: NDArray[np.int64]
    certified: NDArray[np.bool_]


def plain(A: FloatArray, b: FloatArray, M: Preconditioner, rtol: float, limit: int) -> Refined:
    """Solve A x = b by x = M b and x <- x + M (b - A x), until certified or `limit` times.

    The error shrinks by the spectral radius of I - M A a step in the end, and grows where that is above one.

    Parameters
    ----------
    A : ndarray, shape (B, n, n), float64
    b : ndarray, shape (B, n, k), float64
    M : Preconditioner
    rtol : float
        Tolerance of the certificate.
    limit : int

    Returns
    -------
    Refined
    """
    with np.errstate(all="ignore"):
        x = M.right(M.left(b))
        refinements, certified = np.zeros(len(b), dtype=np.int64), np.zeros(len(b), dtype=bool)
        active = np.arange(len(b))
        for count in range(limit + 1):
            good, _, r = _measured(A, b, x[active], rtol)
            refinements[active], certified[active] = count, good
            left = np.flatnonzero(~good & np.isfinite(r).all(axis=(1, 2)))
            if count == limit or not left.size:
                break
            active, A, b, M = active[left], A[left], b[left], M.take(left)
            x[active] += M.right(M.left(r[left]))
    return Refined(x, refinements, certified)


def accelerated(
    A: FloatArray,
    b: FloatArray,
    M: Preconditioner,
    rtol: float,
    limit: int,
    x0: FloatArray | None = None,
    slow: float = SLOW,
) -> Refined:
    """Solve A x = b by generalised conjugate residuals, again from the true residual where the certificate is missed.

    As `LearnedSolver.solve` does: what a new start gives is taken if its backward error is smaller, or else the system
    is left as it was.

    Parameters
    ----------
    A, b, M, rtol, limit
        As in `plain`.
    x0 : ndarray, shape (B, n, k), optional
        First answer; the first step of the iteration, a multiple of M b, if None.
    slow : float
        As in `conjugate_residuals.solve`.

    Returns
    -------
    Refined
    """
    first = 1 if x0 is None else 0
    found = conjugate_residuals.solve(A, b, M, rtol, limit + first, x0, slow)
    x, refinements = found.x, np.maximum(found.steps - first, 0)
    certified, omega, _ = _measured(A, b, x, rtol)
    going = ~certified & (refinements > 0) & (refinements < limit)
    for _ in range(RESTARTS):
        left = np.flatnonzero(going)
        if not left.size:
            break
        again = conjugate_residuals.solve(A[left], b[left], M.take(left), rtol, limit, x[left], slow)
        good, size, _ = _measured(A[left], b[left], again.x, rtol)
        better = good | (size < omega[left])
        kept = left[better]
        x[kept], certified[kept], omega[kept] = again.x[better], good[better], size[better]
        refinements[left] = np.minimum(refinements[left] + again.steps, limit)
        going[left] = better & ~good & (refinements[left] < limit)
    return Refined(x, refinements, certified)


def contraction(A: FloatArray, M: Preconditioner) -> FloatArray:
    """Return the spectral radii (B,) of I - M A for A (B, n, n); infinity where M is not finite."""
    identity = np.eye(A.shape[-1])
    with np.errstate(all="ignore"):
        E = identity - M.right(M.left(np.broadcast_to(identity, A.shape).copy())) @ A
    fine = np.isfinite(E).all(axis=(1, 2))
    radii = np.full(len(A), np.inf)
    radii[fine] = np.abs(np.linalg.eigvals(E[fine])).max(axis=1)
    return radii


def _measured(
    A: FloatArray, b: FloatArray, x: FloatArray, rtol: float
) -> tuple[NDArray[np.bool_], FloatArray, FloatArray]:
    """Return which answers are certified, their backward errors, both by the worst right-hand side, and residuals."""
    relative, omega, r = measures(A, b, x)
    certified = np.all(is_certified(relative, omega, A.shape[-1], rtol), axis=-1)
    return certified, np.max(omega, axis=-1, initial=0.0), r
