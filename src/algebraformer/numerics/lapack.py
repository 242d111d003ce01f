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

from algebraformer.linalg import Measures, has_zero_line, is_certified, measure
from algebraformer.numerics.forward_error import forward_error, probe, rounding

MAX_REFINEMENTS = 3
MAX_DEFECT = 0.5
"""Largest share of a random vector that inv(A) A may leave for the computed factors to count as an inverse of A."""
PROBES = 3
"""Random vectors for the forward error: more than for a network, since here A may have any structure."""
BLOCK_ENTRIES = 2**20
"""Right-hand sides are solved in blocks of this many entries, by a network too: 8 MB, whatever their number."""


@dataclasses.dataclass(frozen=True)
class DirectSolution:
    """LAPACK's answers to B systems, and how good they are; of several right-hand sides the worst.

    Attributes
    ----------
    x : ndarray, shape (B, n, k)
        NaN for singular systems.
    relative_residual, backward_error : ndarray, shape (B,)
    certified : ndarray of bool, shape (B,)
        See `linalg.is_certified`.
    rcond : ndarray, shape (B,)
        Estimated reciprocal condition number in the 1-norm; 0 for singular systems.
    singular : ndarray of bool, shape (B,)
        A row or column is zero, or elimination met an exact zero pivot.
    forward_error : ndarray, shape (B,)
        Estimate of ||x - x*|| / ||x||, on the high side: by the factors where they invert A, else by the backward error
        over rcond. NaN for singular systems.
    """

    x: NDArray[Any]
    relative_residual: NDArray[np.float64]
    backward_error: NDArray[np.float64]
    certified: NDArray[np.bool_]
    rcond: NDArray[np.float64]
    singular: NDArray[np.bool_]
    forward_error: NDArray[np.float64]


def solve(A: NDArray[Any], b: NDArray[Any], rtol: float | None = None) -> DirectSolution:
    """Solve B systems with k right-hand sides each by LU with partial pivoting.

    An answer that misses the certificate (see `linalg.is_certified`) is refined in float64 with the same factors, up
    to three times and only while its backward error falls.

    Parameters
    ----------
    A : ndarray, shape (B, n, n), float64 or complex128, finite
    b : ndarray, shape (B, n, k), the same dtype
    rtol : float, optional
        Tolerance of the certificate.

    Returns
    -------
    DirectSolution

    Examples
    --------
    >>> import numpy as np
    >>> solve(np.array([[[2.0, 0.0], [0.0, 4.0]]]), np.ones((1, 2, 1))).x.ravel()
    array([0.5 , 0.25])
    """
    B, n, k = b.shape
    x = np.full_like(b, np.nan)
    relative, omega, error = (np.zeros(B) for _ in range(3))
    if b.size == 0:
        return DirectSolution(x, relative, omega, np.ones(B, bool), np.ones(B), np.zeros(B, bool), error)
    rcond, certified, singular = np.zeros(B), np.zeros(B, dtype=bool), has_zero_line(A)
    for i in range(B):
        factors = None if singular[i] else _Factors.of(A[i])
        if factors is None or factors.singular:
            singular[i], relative[i], omega[i], error[i] = True, np.inf, np.inf, np.nan
            continue
        rcond[i], certified[i], defect = factors.rcond, True, factors.defect(A[i])
        step = max(1, BLOCK_ENTRIES // n)
        for columns in (slice(j, j + step) for j in range(0, k, step)):
            x[i, :, columns], found = factors.solve(A[i], b[i, :, columns], rtol)
            certified[i] &= is_certified(found.relative_residual, found.backward_error, n, rtol).all()
            relative[i] = max(relative[i], found.relative_residual.max())
            omega[i] = max(omega[i], found.backward_error.max())
            error[i] = max(error[i], factors.forward_error(x[i, :, columns], found, defect))
    return DirectSolution(x, relative, omega, certified, rcond, singular, error)


@dataclasses.dataclass(frozen=True)
class _Factors:
    """LU of one matrix with partial pivoting."""

    lu: NDArray[Any]
    pivots: NDArray[np.int32]
    rcond: float
    singular: bool
    unit: float = 1.0
    """Power of two that A was multiplied by: less than one where sums of its entries would overflow."""

    @classmethod
    def of(cls, A: NDArray[Any]) -> _Factors:
        """Factorise A (n, n) and estimate its condition."""
        getrf, gecon = get_lapack_funcs(("getrf", "gecon"), (A,))
        with np.errstate(over="ignore"):
            norm, unit = np.max(np.sum(np.abs(A), axis=0)), 1.0
        if not np.isfinite(norm):
            unit = 2.0 ** -np.ceil(np.log2(2 * len(A)))
            A = A * unit
            norm = np.max(np.sum(np.abs(A), axis=0))
        lu, pivots, info = getrf(A)
        if info > 0:
            return cls(lu, pivots, 0.0, True)
        return cls(lu, pivots, float(gecon(lu, norm)[0]), False, unit)

    def inverse(self, v: NDArray[Any]) -> NDArray[Any]:
        """Return inv(A) v (n, k) by the factors; NaN throughout where v is not finite."""
        (getrs,) = get_lapack_funcs(("getrs",), (self.lu,))
        v = v.astype(self.lu.dtype, copy=False)
        if not np.isfinite(v).all():
            return np.full_like(v, np.nan)
        solution = getrs(self.lu, self.pivots, v)[0]
        return solution if self.unit == 1.0 else solution * self.unit

    def solve(self, A: NDArray[Any], b: NDArray[Any], rtol: float | None) -> tuple[NDArray[Any], Measures]:
        """Return x (n, k), refined where it misses the certificate, and its measures."""
        x = self.inverse(b)
        found = measure(A, b, x)
        for _ in range(MAX_REFINEMENTS):
            if is_certified(found.relative_residual, found.backward_error, len(A), rtol).all():
                break
            refined = x + self.inverse(found.residual)
            new = measure(A, b, refined)
            if not np.max(new.backward_error) < np.max(found.backward_error):
                break
            x, found = refined, new
        return x, found

    def defect(self, A: NDArray[Any]) -> float:
        """Return the share of a random vector that inv(A) A leaves: small where the factors invert A."""
        g = probe(len(A))
        with np.errstate(all="ignore"):
            Ag = A @ g if self.unit == 1.0 else (A * self.unit) @ g / self.unit
            share = float(np.linalg.norm(g - self.inverse(Ag)))
        return share if np.isfinite(share) else 1.0

    def forward_error(self, x: NDArray[Any], found: Measures, defect: float) -> float:
        """Return the estimated error of x (n, k), the largest over the right-hand sides."""
        if defect <= MAX_DEFECT:
            measured = Measures(*(part[None] for part in found))
            inverse, defects = (lambda v: self.inverse(v[0])[None]), np.array([defect])
            return float(forward_error(inverse, x[None], measured, defects, PROBES)[0])
        # The factors say nothing of directions in which A is singular to working precision, the condition number does.
        n, omega = len(x), float(np.max(found.backward_error, initial=0.0))
        trivial = not x.any() and omega == 0
        return 0.0 if trivial else (omega + rounding(n)) / self.rcond if self.rcond > 0 else np.inf
