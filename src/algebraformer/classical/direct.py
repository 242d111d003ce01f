"""LAPACK's LU, one system at a time, with condition estimate and fixed-precision refinement.

Never torch.linalg: its batched LU on the CPU is wrong on several threads for n from about 150 on (torch 2.13 with
MKL; pytorch issues 142815 and 141358).

References
----------
.. [1] E. Anderson et al., "LAPACK Users' Guide", 3rd ed., SIAM (1999): GETRF, GETRS, GECON.
.. [2] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM (2002), chapter 12: fixed-precision
   refinement makes LU with partial pivoting componentwise backward stable.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import get_lapack_funcs

from algebraformer.linalg import has_zero_line, is_certified, measures

MAX_REFINEMENTS = 3


@dataclasses.dataclass(frozen=True)
class DirectSolution:
    """LAPACK's answers to B systems.

    Attributes
    ----------
    x : ndarray, shape (B, n, k)
        NaN for singular systems.
    rcond : ndarray, shape (B,)
        Estimated reciprocal condition number in the 1-norm; 0 for singular systems.
    singular : ndarray of bool, shape (B,)
        A row or column is zero, or elimination met an exact zero pivot.
    correction : ndarray, shape (B,)
        ||A^-1 r|| / ||x|| with the computed factors and r the residual of x: an estimate of the relative forward
        error, largest over the right-hand sides.
    """

    x: NDArray[Any]
    rcond: NDArray[np.float64]
    singular: NDArray[np.bool_]
    correction: NDArray[np.float64]


def solve(A: NDArray[Any], b: NDArray[Any], rtol: float) -> DirectSolution:
    """Solve B systems with k right-hand sides each by LU with partial pivoting.

    An answer that misses the certificate (see `linalg.is_certified`) is refined in float64 with the same factors, up
    to three times and only while its backward error falls.

    Parameters
    ----------
    A : ndarray, shape (B, n, n), float64 or complex128, finite
    b : ndarray, shape (B, n, k), the same dtype
    rtol : float
        Tolerance of the certificate.

    Returns
    -------
    DirectSolution

    Examples
    --------
    >>> import numpy as np
    >>> solve(np.array([[[2.0, 0.0], [0.0, 4.0]]]), np.ones((1, 2, 1)), rtol=1e-10).x.ravel()
    array([0.5 , 0.25])
    """
    B, n = b.shape[:2]
    x = np.full_like(b, np.nan)
    rcond, correction = np.zeros(B), np.full(B, np.nan)
    if b.size == 0:
        return DirectSolution(x, np.ones(B), np.zeros(B, dtype=bool), np.zeros(B))
    (getrs,) = get_lapack_funcs(("getrs",), (A,))
    singular = has_zero_line(A)
    for i in np.flatnonzero(~singular):
        lu, pivots, rcond[i], singular[i] = _factors(A[i])
        if singular[i]:
            continue
        x[i] = getrs(lu, pivots, b[i])[0]
        relative, omega, r = measures(A[i], b[i], x[i])
        for _ in range(MAX_REFINEMENTS):
            step = getrs(lu, pivots, r)[0] if np.isfinite(r).all() else np.full_like(r, np.nan)
            if not np.isfinite(step).all():
                break
            correction[i] = relative_size(step, x[i])
            if is_certified(relative, omega, n, rtol).all():
                break
            refined = x[i] + step
            new = measures(A[i], b[i], refined)
            if not np.max(new[1]) < np.max(omega):
                break
            x[i], (relative, omega, r) = refined, new
    return DirectSolution(x, rcond, singular, correction)


def conditions(A: NDArray[Any], chosen: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return for A[chosen] the estimated reciprocal condition numbers, 0 where singular, and which are singular.

    Parameters
    ----------
    A : ndarray, shape (B, n, n), float64 or complex128, finite
    chosen : ndarray of int, shape (C,)

    Returns
    -------
    ndarray, shape (C,)
        In the 1-norm.
    ndarray of bool, shape (C,)
        Elimination met an exact zero pivot.

    Examples
    --------
    >>> import numpy as np
    >>> conditions(np.stack([np.ones((2, 2)), np.eye(2)]), np.array([0, 1]))
    (array([0., 1.]), array([ True, False]))
    """
    found = [_factors(A[i])[2:] for i in chosen]
    return np.array([rcond for rcond, _ in found], dtype=float), np.array([zero for _, zero in found], dtype=bool)


def _factors(A: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int32], float, bool]:
    """Return LU and pivots of one matrix, its estimated reciprocal condition number and whether a pivot is zero."""
    getrf, gecon = get_lapack_funcs(("getrf", "gecon"), (A,))
    lu, pivots, info = getrf(A)
    if info > 0:
        return lu, pivots, 0.0, True
    with np.errstate(over="ignore"):
        return lu, pivots, float(gecon(lu, np.max(np.sum(np.abs(A), axis=0)))[0]), False


def relative_size(step: NDArray[Any], x: NDArray[Any]) -> float:
    """Return the largest ||step|| / ||x|| over the right-hand sides; step and x have shape (n, k)."""
    largest = np.max(np.abs(x), axis=0, initial=0.0)
    scale = np.where(largest > 0, largest, 1.0)  # the squares of 1e300 and 1e-300 overflow and underflow
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        size = np.linalg.norm(step / scale, axis=0)
        ratio = np.where(size == 0, 0.0, size / np.linalg.norm(x / scale, axis=0))
    return float(np.max(ratio, initial=0.0))
