"""Measures of how well x solves A x = b, in float64, of NumPy arrays or those of another library.

Everything here is batched: A is (..., n, n), b and x are (..., n, k) with k right-hand sides, and a measure comes
back with the leading shape and one entry per right-hand side, (..., k).

Notation: r = b - A x is the residual, eps = 2**-52 the spacing of float64 at 1.

References
----------
.. [1] W. Oettli and W. Prager, "Compatibility of approximate solution of linear equations with given error bounds
   for coefficients and right-hand sides", Numerische Mathematik 6 (1964).
.. [2] N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed., SIAM (2002), chapters 7 and 12.
.. [3] R. D. Skeel, "Scaling for numerical stability in Gaussian elimination", Journal of the ACM 26 (1979).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from algebraformer.arrays import namespace, real
from algebraformer.passes import products

EPS = float(np.finfo(np.float64).eps)

STABILITY_FACTOR = 1.0
"""The constant c of the certificate: backward_error <= c * n * eps is what a backward stable factorisation reaches.

LAPACK's own answers decide it. On every shipped family of real systems, from n = 8 to 512, LU with partial pivoting
ends at most at 0.76 n eps, with one step of refinement at 0.18 n eps; only below n = 8, where n eps is a few roundings,
does an answer in a thousand need that step (`results/certificate.json`, docs: The certificate), and at n = 16 one in a
hundred of the complex family helmholtz. Evaluating b - A x in float64 may itself be off by (n + 1) eps / 2, so a
smaller constant would test rounding.
"""

FloatArray = NDArray[np.float64]

MODERATE = (1e-140, 1e140)
"""Norms between these come from squares that neither overflowed nor lost digits to underflow."""


def residual(A: FloatArray, b: FloatArray, x: FloatArray) -> FloatArray:
    """Return r = b - A x in float64.

    Parameters
    ----------
    A : ndarray, shape (..., n, n)
    b, x : ndarray, shape (..., n, k)

    Returns
    -------
    ndarray, shape (..., n, k)

    Examples
    --------
    >>> import numpy as np
    >>> residual(np.eye(2), np.ones((2, 1)), np.zeros((2, 1))).ravel()
    array([1., 1.])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return b - A @ x


def norm(v: FloatArray) -> FloatArray:
    """Return the Euclidean norm over axis -2 (..., k), safe where the squares overflow or underflow."""
    xp = namespace(v)
    rows = v.mT
    with np.errstate(over="ignore", invalid="ignore"):
        length = xp.sqrt(real(xp.vecdot(rows, rows)))
        if xp.all((length > MODERATE[0]) & (length < MODERATE[1])):
            return length
        if not isinstance(v, np.ndarray):  # by the largest entry
            most = largest(xp.abs(rows), axis=-1)
            unit = rows / xp.where(most > 0, most, 1.0)[..., None]
            return most * xp.sqrt(real(xp.vecdot(unit, unit)))
        # By a power of two, so that the digits are those of vectors of moderate size.
        _, exponent = np.frexp(np.max(np.abs(rows), axis=-1, initial=0.0))
        exponent = np.clip(exponent, -1000, 1000)
        rows = rows * np.ldexp(1.0, -exponent)[..., None]
        return np.asarray(np.ldexp(np.sqrt(np.vecdot(rows, rows).real), exponent))


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Return numerator / denominator with 0 / 0 = 0; infinity where that is NaN, or the denominator overflowed.

    A finite numerator over an overflowed norm would be 0, and would certify any x whatever.

    Parameters
    ----------
    numerator, denominator : ndarray, shape (...)

    Returns
    -------
    ndarray, shape (...)

    Examples
    --------
    >>> import numpy as np
    >>> ratio(np.array([0.0, 1.0, 1.0]), np.array([0.0, 2.0, np.inf]))
    array([0. , 0.5, inf])
    """
    xp = namespace(denominator)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        quotient = numerator / denominator
    if xp.all(xp.isfinite(quotient)) and xp.all(xp.isfinite(denominator)):
        return quotient
    quotient = xp.where(numerator == 0, 0.0, quotient)
    unknown = xp.isnan(quotient) | (xp.isinf(denominator) & (numerator != 0))
    return xp.where(unknown, xp.inf, quotient)


def relative_residual(A: FloatArray, b: FloatArray, x: FloatArray) -> FloatArray:
    """Return ||b - A x||_2 / ||b||_2 per right-hand side, 0 where both vanish, infinity where x is not finite.

    Parameters
    ----------
    A : ndarray, shape (..., n, n)
    b, x : ndarray, shape (..., n, k)

    Returns
    -------
    ndarray, shape (..., k)

    Examples
    --------
    >>> import numpy as np
    >>> relative_residual(2 * np.eye(2), np.ones((2, 1)), np.full((2, 1), 0.25))
    array([0.5])
    """
    return measures(A, b, x)[0]


def backward_error(A: FloatArray, b: FloatArray, x: FloatArray) -> FloatArray:
    """Return the componentwise backward error of Oettli and Prager [1]_ (LAPACK calls it BERR).

    omega = max_i |b - A x|_i / (|A| |x| + |b|)_i is the smallest relative change of the entries of A and b that
    makes x an exact solution. It does not change when rows of A and b are scaled. It does not bound the forward
    error by itself: ||x - x*|| / ||x*|| is at most about cond(A) * omega, with Skeel's condition number [3]_.

    Parameters
    ----------
    A : ndarray, shape (..., n, n)
    b, x : ndarray, shape (..., n, k)

    Returns
    -------
    ndarray, shape (..., k)
        0 / 0 counts as 0; infinity where x is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> A = np.array([[1.0, 0.0], [0.0, 1e-20]])          # normwise measures overlook the second row
    >>> backward_error(A, np.array([[1.0], [1e-20]]), np.array([[1.0], [0.0]]))
    array([1.])
    """
    return measures(A, b, x)[1]


class Measures(NamedTuple):
    """What `measure` returns."""

    relative_residual: FloatArray
    """||b - A x||_2 / ||b||_2 (..., k); infinity where x is not finite."""
    backward_error: FloatArray
    """Componentwise backward error (..., k), likewise."""
    residual: FloatArray
    """b - A x (..., n, k)."""
    size: FloatArray
    """|A| |x| + |b| (..., n, k): its rounding errors are what float64 cannot resolve in the residual."""


def measure(A: FloatArray, b: FloatArray, x: FloatArray, chosen: NDArray[np.int64] | None = None) -> Measures:
    """Return relative residual, backward error, the residual and |A| |x| + |b| from one pass over A.

    Parameters
    ----------
    A : ndarray, shape (..., n, n)
    b, x : ndarray, shape (..., n, k)
    chosen : ndarray of int, shape (C,), optional
        Matrices of A (B, n, n) that b and x (C, n, k) belong to; all of them if None.

    Returns
    -------
    Measures

    Raises
    ------
    ValueError
        There are not as many matrices as systems.

    Examples
    --------
    >>> import numpy as np
    >>> measure(2 * np.eye(2), np.ones((2, 1)), np.full((2, 1), 0.5)).backward_error
    array([0.])
    """
    xp, shape, n = namespace(x), x.shape, A.shape[-1]
    systems = xp.reshape(x, (math.prod(shape[:-2]), *shape[-2:]))
    matrices = xp.reshape(A, (math.prod(A.shape[:-2]), n, n))
    if chosen is None and matrices.shape[0] != systems.shape[0]:
        raise ValueError(f"A holds {matrices.shape[0]} matrices, x belongs to {systems.shape[0]} systems")
    finite = xp.all(xp.isfinite(x), axis=-2)
    with np.errstate(over="ignore", invalid="ignore"):
        Ax, size = (xp.reshape(part, shape) for part in products(matrices, systems, chosen))
        r, size = b - Ax, size + xp.abs(b)
    relative = ratio(norm(r), norm(b))
    omega = largest(ratio(xp.abs(r), size), axis=-2)
    # An overflowing residual over an overflowing size proves nothing: inf / inf became inf above.
    omega = xp.where(finite & xp.all(xp.isfinite(size), axis=-2), omega, xp.inf)
    return Measures(xp.where(finite, relative, xp.inf), omega, r, size)


def largest(v: FloatArray, axis: int | tuple[int, ...], keepdims: bool = False) -> FloatArray:
    """Return the largest of numbers that are not negative along axes, 0 where there are none."""
    if isinstance(v, np.ndarray):
        return np.asarray(v.max(axis=axis, keepdims=keepdims, initial=0.0))
    xp = namespace(v)
    return (xp.max if math.prod(v.shape) else xp.sum)(v, axis=axis, keepdims=keepdims)


def measures(A: FloatArray, b: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return relative residual (..., k), backward error (..., k) and the residual (..., n, k): see `measure`."""
    return measure(A, b, x)[:3]


def is_certified(relative: FloatArray, omega: FloatArray, n: int, rtol: float | None = None) -> NDArray[np.bool_]:
    """Say which answers are certified: omega <= STABILITY_FACTOR * n * eps, or relative residual <= rtol if given.

    The first is what a backward stable factorisation promises; a tolerance is for callers who need less. Both measures
    are infinite where x is not finite, so such an x is never certified.

    Parameters
    ----------
    relative, omega : ndarray, shape (...)
        From `measure`.
    n : int
        Size of the system.
    rtol : float, optional
        Tolerance on the relative residual.

    Returns
    -------
    ndarray of bool, shape (...)

    Examples
    --------
    >>> import numpy as np
    >>> relative, omega = np.array([1e-11, 1e-3, 1e-3]), np.array([1e-8, 1e-15, 1e-8])
    >>> is_certified(relative, omega, n=64)
    array([False,  True, False])
    >>> is_certified(relative, omega, n=64, rtol=1e-10)
    array([ True,  True, False])
    """
    stable = omega <= STABILITY_FACTOR * n * EPS
    return stable if rtol is None else stable | (relative <= rtol)


def test_ratio(A: FloatArray, b: FloatArray, x: FloatArray) -> FloatArray:
    """Return LAPACK's test ratio ||b - A x||_1 / (||A||_1 ||x||_1 eps), per right-hand side.

    LAPACK's own tests pass below 30. It is a normwise measure: with hilbert(14) and the last unit vector for b,
    LAPACK's answer passes at 0.06 with a relative residual of 0.16, so read it beside `relative_residual`.

    Parameters
    ----------
    A : ndarray, shape (..., n, n)
    b, x : ndarray, shape (..., n, k)

    Returns
    -------
    ndarray, shape (..., k)

    Examples
    --------
    >>> import numpy as np
    >>> test_ratio(np.eye(2), np.ones((2, 1)), np.ones((2, 1)))
    array([0.])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        r = np.sum(np.abs(residual(A, b, x)), axis=-2)
        norm_A = np.max(np.sum(np.abs(A), axis=-2), axis=-1, initial=0.0)[..., None]
        size = norm_A * EPS * np.sum(np.abs(x), axis=-2)
    return ratio(r, size)


test_ratio.__test__ = False  # type: ignore[attr-defined]  # its name makes pytest take it for a test


def condition_number(A: FloatArray) -> FloatArray:
    """Return the 2-norm condition number sigma_max / sigma_min, infinity for a singular matrix.

    Parameters
    ----------
    A : ndarray, shape (..., n, n)

    Returns
    -------
    ndarray, shape (...)

    Examples
    --------
    >>> import numpy as np
    >>> condition_number(np.diag([1.0, 4.0]))
    array(4.)
    """
    sigma = np.linalg.svd(A, compute_uv=False).astype(np.float64, copy=False)
    return np.where(sigma[..., -1] == 0, np.inf, ratio(sigma[..., 0], sigma[..., -1]))


def skeel_condition_number(A: FloatArray) -> FloatArray:
    """Return Skeel's cond(A) = || |A^-1| |A| ||_inf [3]_: forward error <= about cond(A) * backward_error.

    Parameters
    ----------
    A : ndarray, shape (..., n, n)

    Returns
    -------
    ndarray, shape (...)

    Raises
    ------
    LinAlgError
        If a matrix is singular.

    Examples
    --------
    >>> import numpy as np
    >>> skeel_condition_number(np.diag([1e-8, 1.0]))          # row scaling does not matter to it
    array(1.)
    """
    inverse = np.linalg.inv(A)
    return np.asarray(np.max(np.sum(np.abs(inverse) @ np.abs(A), axis=-1), axis=-1))


def relative_error(x: FloatArray, reference: FloatArray) -> FloatArray:
    """Return ||x - reference||_2 / ||reference||_2 over axis -2, per right-hand side.

    Parameters
    ----------
    x, reference : ndarray, shape (..., n, k)

    Returns
    -------
    ndarray, shape (..., k)

    Examples
    --------
    >>> import numpy as np
    >>> relative_error(np.array([[1.1]]), np.array([[1.0]])).round(6)
    array([0.1])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        difference = x - reference
    return ratio(norm(difference), norm(reference))


def normalized_mse(x: FloatArray, reference: FloatArray) -> float:
    """Return sum ||x - reference||^2 / sum ||reference||^2 over the whole set, infinity where x is not finite.

    Parameters
    ----------
    x, reference : ndarray, any shape, the same

    Examples
    --------
    >>> import numpy as np
    >>> normalized_mse(np.array([1.0, 2.0]), np.array([1.0, 1.0]))
    0.5
    """
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.asarray(np.sum(np.abs(x - reference) ** 2))
        size = np.asarray(np.sum(np.abs(reference) ** 2))
    return float(ratio(error, size))
