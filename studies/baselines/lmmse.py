"""The linear minimum mean square error estimator of x from b: the best affine one.

`fit` learns it from a sample of a family and ignores the matrix; `algebraformer.numerics.lmmse.known_matrix` is given
the matrix, the first two moments of x, and the level of the noise.

References
----------
.. [1] S. M. Kay, "Fundamentals of Statistical Signal Processing: Estimation Theory", Prentice Hall (1993), chapter 12.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from algebraformer.linalg import FloatArray
from algebraformer.numerics.lmmse import known_matrix as known_matrix


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
