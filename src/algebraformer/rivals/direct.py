"""Factorisations of dense matrices, one system after the other unless batched.

LAPACK keeps matrices by columns. What a row-major A is in that order is its transpose: to factorise that saves a
transposition of A, which at n = 1024 takes a tenth of the time of the factors.

References
----------
.. [1] E. Anderson et al., "LAPACK Users' Guide", 3rd ed., SIAM (1999): GESV, POSV, GBSV, PBSV.
.. [2] A. Buttari, J. Dongarra, J. Langou, J. Langou, P. Luszczek and J. Kurzak, "Mixed precision iterative refinement
   techniques for the solution of dense linear systems", Int. J. High Perform. Comput. Appl. 21 (2007).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.linalg

from algebraformer.linalg import EPS, STABILITY_FACTOR
from algebraformer.rivals.pool import Array, Solve

MAX_CORRECTIONS = 6
"""Corrections of an answer in float32: two to four are enough where its factors are worth anything."""
STAGNATION = 0.25
"""A correction that leaves more of the residual than this is the last one."""


def one_by_one(solve: Callable[[Array, Array], Array]) -> Solve:
    """Return a way that solves one system of the batch after the other."""

    def way(A: Array, b: Array) -> Array:
        x = np.empty_like(b)
        for i in range(len(A)):
            x[i] = solve(A[i], b[i])
        return x

    return way


def numpy_lu(A: Array, b: Array) -> Array:
    """Solve a batch by numpy.linalg.solve."""
    return np.asarray(np.linalg.solve(A, b[:, :, None])[:, :, 0])


def scipy_lu(A: Array, b: Array) -> Array:
    """Solve a batch by scipy.linalg.solve, told that nothing is special about A."""
    return np.asarray(scipy.linalg.solve(A, b[:, :, None], assume_a="gen", check_finite=False)[:, :, 0])


def lu(A: Array, b: Array) -> Array:
    """Solve A (n, n) x = b, (n,) or (n, k), by LU with partial pivoting."""
    getrf, getrs = _routines(("getrf", "getrs"), A.dtype.char)
    factors, pivots, info = getrf(A.T)
    _check(info)
    return np.asarray(getrs(factors, pivots, b, trans=1)[0])


def cholesky(A: Array, b: Array) -> Array:
    """Solve A (n, n) x = b (n,) by a Cholesky factorisation; only one triangle of A is read."""
    potrf, potrs = _routines(("potrf", "potrs"), A.dtype.char)
    factor, info = potrf(A.T, lower=False, clean=False)
    _check(info)
    if A.dtype.kind == "c":  # the transpose of A is its conjugate
        return np.asarray(potrs(factor, b.conj(), lower=False)[0]).conj()
    return np.asarray(potrs(factor, b, lower=False)[0])


def float32_lu(A: Array, b: Array, rtol: float | None = None) -> Array:
    """Solve A (n, n) x = b, (n,) or (n, k), by LU in float32, refined in float64 until certified; else by LU."""
    getrf, getrs = _routines(("getrf", "getrs"), _single(A).char)
    factors, pivots, info = getrf(_rounded(A).T, overwrite_a=True)
    x = None if info else _refined(A, b, lambda r: getrs(factors, pivots, r, trans=1)[0], rtol)
    return lu(A, b) if x is None else x


def float32_cholesky(A: Array, b: Array, rtol: float | None = None) -> Array:
    """Solve A (n, n) x = b (n,) by Cholesky in float32, refined in float64 until certified; else in float64."""
    potrf, potrs = _routines(("potrf", "potrs"), "f")
    factor, info = potrf(_rounded(A).T, lower=False, clean=False, overwrite_a=True)
    x = None if info else _refined(A, b, lambda r: potrs(factor, r, lower=False)[0], rtol)
    return cholesky(A, b) if x is None else x


def _refined(A: Array, b: Array, inverse: Callable[[Array], Array], rtol: float | None) -> Array | None:
    """Return x <- x + M (b - A x) from x = 0 with M in float32 [2]_, None if that does not certify x.

    |A| |x| + |b| is computed once, from the first answer.
    """
    single = _single(A)
    with np.errstate(over="ignore", invalid="ignore"):
        x = inverse(b.astype(single)).astype(A.dtype)
        allowed = STABILITY_FACTOR * len(A) * EPS * (np.abs(A) @ np.abs(x) + np.abs(b))
        target = 0.0 if rtol is None else rtol * np.linalg.norm(b, axis=0)
        last = np.inf
        for _ in range(MAX_CORRECTIONS):
            r = b - A @ x
            size = float(np.linalg.norm(r))
            if (np.abs(r) <= allowed).all() or (rtol is not None and (np.linalg.norm(r, axis=0) <= target).all()):
                return x
            if not size < STAGNATION * last:
                break
            last = size
            x += inverse((r / size).astype(single)) * size
    return None


def banded_lu(lower: int, upper: int) -> Solve:
    """Return the way for matrices with so many diagonals below and above the main one: LU of these alone."""

    def way(A: Array, b: Array) -> Array:
        (gbsv,) = _routines(("gbsv",), A.dtype.char)
        bands, x = diagonals(A, lower, upper, above=lower), np.empty_like(b)
        for i in range(len(A)):
            *_, x[i], info = gbsv(lower, upper, bands[i].T, b[i], overwrite_ab=True)
            _check(info)
        return x

    return way


def banded_cholesky(width: int) -> Solve:
    """Return the way for positive definite matrices with so many diagonals on either side of the main one."""

    def way(A: Array, b: Array) -> Array:
        (pbsv,) = _routines(("pbsv",), A.dtype.char)
        bands, x = diagonals(A, width, 0), np.empty_like(b)
        for i in range(len(A)):
            _, x[i], info = pbsv(bands[i].T, b[i], lower=True, overwrite_ab=True)
            _check(info)
        return x

    return way


def diagonals(A: Array, lower: int, upper: int, above: int = 0) -> Array:
    """Return the diagonals of A (B, n, n) as LAPACK keeps bands, transposed: (B, n, above + upper + 1 + lower).

    Entry [i, j, above + upper + p - j] is A[i, p, j]; the first `above` of a column are left free.

    Examples
    --------
    >>> import numpy as np
    >>> diagonals(np.array([[[1, 2, 0], [3, 4, 5], [0, 6, 7]]]), 1, 1)[0].T
    array([[0, 2, 5],
           [1, 4, 7],
           [3, 6, 0]])
    """
    B, n, _ = A.shape
    bands = np.zeros((B, n, above + upper + 1 + lower), dtype=A.dtype)
    for d in range(-lower, upper + 1):
        bands[:, max(d, 0) : n + min(d, 0), above + upper - d] = np.diagonal(A, d, axis1=1, axis2=2)
    return bands


def _single(A: Array) -> np.dtype[Any]:
    """Return the type of numbers with half as many bits."""
    return np.dtype(np.complex64 if A.dtype.kind == "c" else np.float32)


def _rounded(A: Array) -> Array:
    """Return A in half as many bits; infinity where it is beyond their range."""
    with np.errstate(over="ignore"):
        return A.astype(_single(A))


def _check(info: int) -> None:
    """Raise `LinAlgError` if LAPACK could not factorise."""
    if info:
        raise np.linalg.LinAlgError(f"a matrix is singular or not positive definite: LAPACK returned info = {info}")


@functools.cache
def _routines(names: tuple[str, ...], kind: str) -> Any:
    """Return LAPACK's routines for this kind of numbers: to look them up takes longer than a small LU."""
    return scipy.linalg.get_lapack_funcs(names, dtype=kind)
