"""The linear minimum mean square error estimator of x from b = A x + noise: the best affine one [1]_.

References
----------
.. [1] S. M. Kay, "Fundamentals of Statistical Signal Processing: Estimation Theory", Prentice Hall (1993), chapter 12.
"""

from __future__ import annotations

import numpy as np

from algebraformer.linalg import FloatArray


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
