"""Reference solutions: Gaussian elimination in NumPy's longdouble, vectorised over a batch of systems.

longdouble has 64 bits of mantissa where it is the 80-bit type of x86 processors, and 113 where it is binary128. On
platforms where it is float64 the reference is only as accurate as LAPACK's answers.

References
----------
.. [1] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM (2002), chapters 7, 9 and 12.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
BATCH = 32
"""Systems that are eliminated at a time: with n = 64 they stay in the cache."""
REFINEMENTS = 2


@dataclasses.dataclass(frozen=True)
class Reference:
    """Solutions of B systems in more digits.

    Attributes
    ----------
    x : ndarray, shape (B, n), longdouble
        Not finite where elimination met a zero pivot.
    condition : ndarray, shape (B,), longdouble
        Skeel's condition number of A and x, || |A^-1| |A| |x| ||_inf / ||x||_inf. It changes neither with the scaling
        of rows nor, as long as the largest entry of x stays in its place, with that of columns. An answer with
        componentwise backward error omega has, to first order, an error of at most 2 condition * omega in the infinity
        norm.
    uncertainty : ndarray, shape (B,), longdouble
        2 condition (omega + n eps) with longdouble's eps and the backward error omega of x: roughly a bound on the
        relative error of x itself.
    """

    x: Array
    condition: Array
    uncertainty: Array


def solve(A: Array, b: Array) -> Reference:
    """Solve B systems by elimination with partial pivoting and two steps of refinement, all in longdouble.

    Rows and columns are equilibrated first, by powers of two.

    Parameters
    ----------
    A : ndarray, shape (B, n, n), float64
    b : ndarray, shape (B, n), float64

    Returns
    -------
    Reference

    Examples
    --------
    >>> import numpy as np
    >>> reference = solve(np.array([[[1e200, 0.0], [0.0, 3.0]]]), np.array([[1e200, 1.0]]))
    >>> reference.x.astype(float), reference.condition.astype(float)
    (array([[1.        , 0.33333333]]), array([1.]))
    """
    with np.errstate(all="ignore"):
        parts = [_solve(A[i : i + BATCH], b[i : i + BATCH]) for i in range(0, len(A), BATCH)]
    return Reference(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _solve(A: Array, b: Array) -> tuple[Array, Array, Array]:
    n = b.shape[1]
    A, b = A.astype(np.longdouble), b.astype(np.longdouble)
    rows = np.frexp(np.abs(A).max(axis=2))[1]
    A = np.ldexp(A, -rows[:, :, None])
    columns = np.frexp(np.abs(A).max(axis=1))[1]
    A, b = np.ldexp(A, -columns[:, None, :]), np.ldexp(b, -rows)[:, :, None]
    identity = np.broadcast_to(np.eye(n, dtype=np.longdouble), A.shape)
    solution = _eliminate(np.concatenate((A, b, identity), axis=2))
    y, inverse = solution[:, :, :1], solution[:, :, 1:]
    for _ in range(REFINEMENTS):
        y = y + inverse @ (b - A @ y)
    size = np.abs(A) @ np.abs(y)
    omega = (np.abs(b - A @ y) / (size + np.abs(b)))[:, :, 0].max(axis=1)
    x, growth = (np.ldexp(v[:, :, 0], -columns) for v in (y, np.abs(inverse) @ size))
    condition = growth.max(axis=1) / np.abs(x).max(axis=1)
    return x, condition, 2 * condition * (omega + n * np.finfo(np.longdouble).eps)


def _eliminate(M: Array) -> Array:
    """Return inv(M[:, :, :n]) M[:, :, n:] for M (B, n, n + k), which is overwritten."""
    B, n, _ = M.shape
    systems = np.arange(B)
    for k in range(n):
        pivot = k + np.argmax(np.abs(M[:, k:, k]), axis=1)
        row = M[systems, pivot, k:]  # a copy
        M[systems, pivot, k:] = M[:, k, k:]
        M[:, k, k:] = row
        factor = M[:, k + 1 :, k] / row[:, :1]
        M[:, k + 1 :, k:] -= factor[:, :, None] * row[:, None]
    for k in reversed(range(n)):
        M[:, k, n:] = (M[:, k, n:] - (M[:, k, None, k + 1 : n] @ M[:, k + 1 :, n:])[:, 0]) / M[:, k, k, None]
    return M[:, :, n:]
