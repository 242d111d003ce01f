"""Forward error of a computed solution, estimated with an approximate inverse M: on the high side, without a bound.

The error of x is inv(A) (r + d), with r the computed residual and d its rounding error. LAPACK's xGERFS bounds
|| |inv(A)| (|r| + |d|) || with several solves and |d| <= (n + 1) eps / 2 (|A| |x| + |b|) [1]_. Here M replaces inv(A),
and random vectors replace d; their size is what n + 1 roundings reach but with a small probability,
sqrt(n + 1) eps (|A| |x| + |b|) [2]_. So it costs one product with M for each right-hand side.

References
----------
.. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM (2002), section 7.2.
.. [2] N. J. Higham and T. Mary, "A new approach to probabilistic rounding error analysis", SIAM J. Sci. Comput. 41
   (2019): the constant n of a bound becomes 2 sqrt(n) with a probability of 1 - 2 exp(-2) for each sum.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from algebraformer.arrays import beside, host, namespace
from algebraformer.linalg import EPS, FloatArray, Measures, largest, norm, ratio

MAX_DEFECT = 0.5
"""Largest share of a random vector that M A may leave for M to count as an inverse of A: the factors of LAPACK, or a
network's approximation. Singular matrices leave more."""
SAFETY_FACTOR = 2.0
"""Factor on the whole estimate: the defect of one random vector is only about that of M A, and where the tolerance is
loose the estimate would be up to 1 % too low without it."""


@functools.lru_cache(maxsize=8)
def probe(n: int) -> FloatArray:
    """Return the random vector (n, 1) of length one that measures how near M A is to the identity: always the same."""
    g = np.random.default_rng(0).standard_normal((n, 1))
    g /= np.linalg.norm(g)
    g.flags.writeable = False
    return g


@functools.lru_cache(maxsize=8)
def _probes(n: int, count: int) -> FloatArray:
    """Return the random vectors (n, count) in place of rounding errors: always the same."""
    d = np.random.default_rng(1).standard_normal((n, count))
    d.flags.writeable = False
    return d


def probes_for(A: NDArray[Any]) -> Any:
    """Return `probe` for each of the matrices A (B, n, n): (B, n, 1), an array of their library, on their device."""
    B, n, _ = A.shape
    g = np.broadcast_to(probe(n), (B, n, 1)).copy()
    if isinstance(A, np.ndarray):
        return g
    return namespace(A).astype(beside(A, g), A.dtype)  # torch multiplies equal dtypes alone


def rounding(n: int) -> float:
    """Return the size of the rounding error in an entry of b - A x, relative to that of |A| |x| + |b|."""
    return float(np.sqrt(n + 1)) * EPS


def error_by_condition(trivial: Any, omega: FloatArray, rcond: Any, n: int) -> FloatArray:
    """Return the estimated errors (B,) by backward errors over reciprocal condition numbers.

    Parameters
    ----------
    trivial : ndarray of bool, shape (B,)
        Where x = 0 solves the system, for which there is no error.
    omega, rcond : ndarray, shape (B,)
    n : int
        Number of unknowns.
    """
    with np.errstate(all="ignore"):
        bound = np.where(np.asarray(rcond) > 0, (omega + rounding(n)) / rcond, np.inf)
    return np.where(trivial, 0.0, bound)


def forward_error(
    M: Callable[[NDArray[Any]], NDArray[Any]], x: NDArray[Any], measured: Measures, defect: FloatArray, probes: int
) -> FloatArray:
    """Estimate ||x - x*|| / ||x|| in the 2-norm for B systems, of several right-hand sides the worst.

    Parameters
    ----------
    M : callable
        Takes v (B, n, j) to M v (B, n, j), M an approximation of inv(A).
    x : ndarray, shape (B, n, k)
        The computed solutions.
    measured : Measures
        Of x.
    defect : ndarray, shape (B,)
        An estimate of ||I - M A||, below one.
    probes : int
        Random vectors. One may be nearly orthogonal to what inv(A) amplifies; three hardly ever are. They are Gaussian:
        of random signs two entries are often equal, and what amplifies their difference (two rows nearly equal) goes
        unseen.

    Returns
    -------
    ndarray, shape (B,)
        2 ||M (r + d)|| with the first random vector d, plus ||M d|| with the others, over (1 - defect) ||x||; 0 for
        x = 0 with b = 0, infinity where something is not finite.
    """
    xp, n = namespace(x), x.shape[1]
    random = beside(x, _probes(n, probes))
    with np.errstate(all="ignore"):
        length = norm(x)[:, None, :]  # (B, 1, k)
        most = largest(length, axis=2, keepdims=True)
        share = ratio(length, most)  # of the largest: what is divided by it stays within float64

        # 1. Residual and rounding of every right-hand side, relative to x; 0 / 0 counts as 0.
        r = xp.where(measured.residual == 0, 0.0, measured.residual / share)
        d = rounding(n) * largest(ratio(measured.size, share), axis=2, keepdims=True)

        # 2. Through M: the first random vector together with every residual, the others alone.
        columns = xp.concat((r + d * random[:, :1], d * random[:, 1:]), axis=2)
        e = norm(M(columns))  # (B, k + probes - 1)
        k = r.shape[2]
        size = SAFETY_FACTOR * largest(e[:, :k], axis=1) + norm(e[:, k:, None])[:, 0]

        # 3. What M leaves out, as the sum of a geometric series.
        estimate = ratio(host(size), (1 - defect) * host(most)[:, 0, 0])
    return np.where(np.isfinite(estimate), estimate, np.inf)
