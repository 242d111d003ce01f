"""The linear minimum mean square error estimator of x from b: the best affine one.

`fit` learns it from a sample of a family and ignores the matrix; `known_matrix` is given the matrix, the first two
moments of x, and the level of the noise.

References
----------
.. [1] S. M. Kay, "Fundamentals of Statistical Signal Processing: Estimation Theory", Prentice Hall (1993), chapter 12.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from algebraformer.linalg import FloatArray


@dataclasses.dataclass(frozen=True)
class LinearEstimator:
    """x = x_mean + G (b - b_mean).

    Attributes
    ----------
    gain : ndarray, shape (n, n)
        G.
    b_mean, x_mean : ndarray, shape (n,)
    """

    gain: FloatArray
    b_mean: FloatArray
    x_mean: FloatArray

    def __call__(self, b: FloatArray) -> FloatArray:
        """Return the estimates (B, n) for right-hand sides b (B, n)."""
        return self.x_mean + (b - self.b_mean) @ self.gain.T


def fit(b: FloatArray, x: FloatArray) -> LinearEstimator:
    """Return the estimator with the least sum of squares on a sample; of several, that with the smallest gain.

    Parameters
    ----------
    b, x : ndarray, shape (S, n)
        Right-hand sides and solutions of a sample of the family.

    Examples
    --------
    >>> import numpy as np
    >>> b = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    >>> fit(b, 3 * b + 1)(np.array([[5.0, -1.0]])).round(12)
    array([[16., -2.]])
    """
    b_mean, x_mean = b.mean(axis=0), x.mean(axis=0)
    solution = np.linalg.lstsq(b - b_mean, x - x_mean, rcond=None)[0]
    return LinearEstimator(np.asarray(solution.T, dtype=np.float64), b_mean, x_mean)


def known_matrix(
    A: FloatArray, b: FloatArray, mean: FloatArray, covariance: FloatArray, deviation: FloatArray
) -> FloatArray:
    """Return mean + C A' (A C A' + d^2 I)^-1 (b - A mean), the best affine estimate from b = A x + noise.

    Parameters
    ----------
    A : ndarray, shape (B, m, n)
    b : ndarray, shape (B, m)
    mean : ndarray, shape (n,)
    covariance : ndarray, shape (n, n)
        C.
    deviation : ndarray, shape (B,)
        Standard deviation d of the noise, which is white.

    Returns
    -------
    ndarray, shape (B, n)

    Examples
    --------
    >>> import numpy as np
    >>> A, b = np.eye(2)[None], np.array([[3.0, 5.0]])
    >>> known_matrix(A, b, np.ones(2), np.eye(2), np.array([1.0]))
    array([[2., 3.]])
    """
    across = A @ covariance  # (B, m, n)
    spread = across @ A.mT + deviation[:, None, None] ** 2 * np.eye(A.shape[1])
    weights = np.linalg.solve(spread, (b - A @ mean)[..., None])  # (B, m, 1)
    return mean + (across.mT @ weights)[..., 0]
