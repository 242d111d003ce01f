"""Chebyshev collocation on [-1, 1].

References
----------
.. [1] L. N. Trefethen, "Spectral Methods in MATLAB", SIAM (2000), chapter 6.
.. [2] R. Baltensperger and M. R. Trummer, "Spectral differencing with a twist", SIAM J. Sci. Comput. 24 (2003).
.. [3] J.-P. Berrut and L. N. Trefethen, "Barycentric Lagrange interpolation", SIAM Review 46 (2004).
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@functools.cache
def points(n: int) -> FloatArray:
    """Return the n Chebyshev-Gauss-Lobatto points cos(pi j / (n - 1)), descending from 1 to -1, read-only.

    Computed as sines, so that the points are symmetric about 0 to the last bit.

    Parameters
    ----------
    n : int, at least 2

    Returns
    -------
    ndarray, shape (n,)

    Examples
    --------
    >>> points(3)
    array([ 1.,  0., -1.])
    """
    if n < 2:
        raise ValueError(f"Chebyshev-Gauss-Lobatto points need n >= 2, received {n}")
    x = np.sin(np.pi * np.arange(n - 1, -n, -2) / (2 * (n - 1)))
    x.flags.writeable = False
    return x


@functools.cache
def differentiation_matrix(n: int) -> FloatArray:
    """Return D with (D u)_i = u'(x_i) for polynomials u of degree below n, read-only.

    The off-diagonal entries are c_i / c_j (-1)^(i+j) / (x_i - x_j), with the differences from a product of sines
    [2]_ and the diagonal as the negative sum of its row, which makes D exact on constants.

    Parameters
    ----------
    n : int, at least 2

    Returns
    -------
    ndarray, shape (n, n)

    Examples
    --------
    >>> differentiation_matrix(2)
    array([[ 0.5, -0.5],
           [ 0.5, -0.5]])
    """
    if n < 2:
        raise ValueError(f"a differentiation matrix needs n >= 2, received {n}")
    theta = np.pi * np.arange(n) / (2 * (n - 1))
    # x_i - x_j = 2 sin((t_i + t_j) / 2) sin((t_j - t_i) / 2) with t = 2 theta
    difference = 2 * np.sin(theta[:, None] + theta) * np.sin(theta - theta[:, None])
    # The lower half mirrors the upper one, where the sines are accurate: D[i, j] = -D[n-1-i, n-1-j].
    difference = np.where(np.add.outer(np.arange(n), np.arange(n)) < n, difference, -difference[::-1, ::-1])
    c = np.where((np.arange(n) % (n - 1)) == 0, 2.0, 1.0) * (-1.0) ** np.arange(n)
    np.fill_diagonal(difference, 1.0)
    D = (c[:, None] / c) / difference
    np.fill_diagonal(D, 0.0)
    np.fill_diagonal(D, -np.sum(D, axis=1))
    D.flags.writeable = False
    return D


def interpolate(u: FloatArray, t: FloatArray) -> FloatArray:
    """Evaluate at t the polynomial that takes the values u at the Chebyshev points (barycentric formula [3]_).

    Parameters
    ----------
    u : ndarray, shape (n,)
        Values at `points(n)`.
    t : ndarray, shape (m,)
        Where to evaluate, in [-1, 1].

    Returns
    -------
    ndarray, shape (m,)

    Examples
    --------
    >>> x = points(5)
    >>> interpolate(x**3, np.array([0.5]))
    array([0.125])
    """
    return interpolation_matrix(len(u), t) @ u


def interpolation_matrix(n: int, t: FloatArray) -> FloatArray:
    """Return the matrix (m, n) that maps values at `points(n)` to those of the interpolating polynomial at t (m,).

    Examples
    --------
    >>> interpolation_matrix(2, np.array([0.0, 1.0]))
    array([[0.5, 0.5],
           [1. , 0. ]])
    """
    x = points(n)
    weights = (-1.0) ** np.arange(n)
    weights[[0, -1]] /= 2
    difference = t[:, None] - x  # (m, n)
    hit = difference == 0
    quotient = weights / np.where(hit, 1.0, difference)
    matrix = quotient / np.sum(quotient, axis=1, keepdims=True)
    return np.where(hit.any(axis=1)[:, None], hit.astype(np.float64), matrix)
