"""Tikhonov's regularisation with x >= 0: the classical answer where an unknown is a density.

x minimises ||A x + N y - b||_2^2 + lambda^2 ||L x||_2^2 over x >= 0 and y >= 0, with differences L, by the active set
method of Lawson and Hanson [1]_. What the columns of N stand for (an offset, a resistance) is not regularised. lambda
is chosen by generalised cross-validation of the problem without bounds [2]_, as is usual: with bounds the answer is no
longer linear in b.

References
----------
.. [1] C. L. Lawson and R. J. Hanson, "Solving Least Squares Problems", Prentice-Hall 1974, chapter 23.
.. [2] G. H. Golub, M. Heath and G. Wahba, "Generalized cross-validation as a method for choosing a good ridge
   parameter", Technometrics 21 (1979).
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from algebraformer.linalg import FloatArray
from algebraformer.numerics import regularization

MAX_ITERATIONS = 30
"""Iterations of the active set method for each unknown: SciPy's default of 3 is too few for smooth answers."""


def nonnegative(
    A: FloatArray, b: FloatArray, parameter: float, order: int = 2, free: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return x >= 0 and y >= 0 for one value of lambda.

    Parameters
    ----------
    A : ndarray, shape (m, n)
    b : ndarray, shape (m,)
    parameter : float
        lambda.
    order : int
        Of the differences L; 0 for the identity.
    free : ndarray, shape (m, q), optional
        N; no columns by default.

    Returns
    -------
    ndarray, shape (n,)
    ndarray, shape (q,)

    Raises
    ------
    RuntimeError
        The active set method has not ended.

    Examples
    --------
    >>> import numpy as np
    >>> x, y = nonnegative(np.eye(3), np.array([1.0, -1.0, 2.0]), 0.0)
    >>> x
    array([1., 0., 2.])
    """
    m, n = A.shape
    N = np.empty((m, 0)) if free is None else free
    L = regularization.differences(n, order)
    stacked = np.block([[A, N], [parameter * L, np.zeros((len(L), N.shape[1]))]])
    right = np.concatenate((b, np.zeros(len(L))))
    if len(stacked) > stacked.shape[1]:  # the same minimum, from far fewer equations
        Q, R = np.linalg.qr(stacked)
        stacked, right = R, Q.T @ right
    found, _ = nnls(stacked, right, maxiter=MAX_ITERATIONS * stacked.shape[1])
    return found[:n], found[n:]


def nearest(
    A: FloatArray, b: FloatArray, x: FloatArray, std: FloatArray, free: FloatArray, free_std: float
) -> tuple[FloatArray, FloatArray]:
    """Return u >= 0 near x, and y of either sign, that explain data b with noise of variance one.

    They minimise ||A u + N y - b||_2^2 + ||(u - x) / std||_2^2 + ||y / free_std||_2^2: the posterior mode for normal
    priors.

    Parameters
    ----------
    A : ndarray, shape (m, n)
    b : ndarray, shape (m,)
    x, std : ndarray, shape (n,)
        Prior mean and standard deviation, positive.
    free : ndarray, shape (m, q)
        N.
    free_std : float
        Standard deviation of y.

    Returns
    -------
    ndarray, shape (n,)
    ndarray, shape (q,)

    Raises
    ------
    RuntimeError
        The active set method has not ended.

    Examples
    --------
    >>> import numpy as np
    >>> u, _ = nearest(np.eye(2), np.array([3.0, -4.0]), np.ones(2), np.ones(2), np.zeros((2, 0)), 1.0)
    >>> u
    array([2., 0.])
    """
    n, q = len(x), free.shape[1]
    # y is the difference of two nonnegative parts, and u counts in units of its prior deviation.
    F = np.concatenate((A * std, free_std * free, -free_std * free), axis=1)
    prior = np.eye(n + q, n + 2 * q)
    prior[n:, n + q :] = -np.eye(q)
    Q, R = np.linalg.qr(np.concatenate((F, prior)))
    right = Q.T @ np.concatenate((b, x / std, np.zeros(q)))
    found, _ = nnls(R, right, maxiter=MAX_ITERATIONS * R.shape[1])
    return std * found[:n], free_std * (found[n : n + q] - found[n + q :])


def cross_validated(
    A: FloatArray, b: FloatArray, order: int = 2, free: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return x >= 0 and y >= 0 with lambda by generalised cross-validation; see `nonnegative`."""
    return nonnegative(A, b, choose_parameter(A, b, order, free), order, free)


def batch_cross_validated(A: FloatArray, b: FloatArray, order: int = 2) -> FloatArray:
    """Return x >= 0 (B, n) for A (B, m, n) and b (B, m), lambda by generalised cross-validation; see `nonnegative`.

    Where all matrices are equal, one is decomposed.
    """
    path = regularization.tikhonov(regularization.decompose(A, order), b)
    index = regularization.cross_validation(path)
    chosen = np.take_along_axis(path.parameters, index[:, None], axis=1)[:, 0]
    return np.array([nonnegative(*system, order)[0] for system in zip(A, b, chosen.tolist(), strict=True)])


def choose_parameter(A: FloatArray, b: FloatArray, order: int = 2, free: FloatArray | None = None) -> float:
    """Return lambda by generalised cross-validation of the problem without bounds, y being fitted exactly.

    Parameters are those of `nonnegative`.
    """
    path = _path(A, b, order, free)
    index = regularization.cross_validation(path)
    return float(path.parameters[0, index[0]])


def linear(A: FloatArray, b: FloatArray, order: int = 2, free: FloatArray | None = None) -> FloatArray:
    """Return x (n,) of either sign with lambda by generalised cross-validation, y being fitted exactly.

    Parameters are those of `nonnegative`.
    """
    path = _path(A, b, order, free)
    x: FloatArray = path.chosen(regularization.cross_validation(path))[0]
    return x


def _path(A: FloatArray, b: FloatArray, order: int, free: FloatArray | None) -> regularization.Path:
    """Return the solutions without bounds for all lambda, y being fitted exactly."""
    if free is not None and free.shape[1]:
        # In an orthonormal basis of what N leaves over, the columns of N are gone and noise is as white as before.
        Q, _ = np.linalg.qr(free, mode="complete")
        rest = Q[:, free.shape[1] :]
        A, b = rest.T @ A, rest.T @ b
    return regularization.tikhonov(regularization.decompose(A[None], order), b[None])
