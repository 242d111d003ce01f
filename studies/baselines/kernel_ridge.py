"""The operator head with its network replaced by kernel ridge regression from the same entries.

The entries that are read are centred and turned into principal components, which count by a power of their spread. A
Gaussian kernel of these compares two systems; power, length and ridge are those with the least error on samples left
out, one at a time and in closed form [1]_. The cost of a prediction grows with the number of samples.

References
----------
.. [1] C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press (2006), sec. 5.4.2.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.numerics.preconditioner import ApproximateInverse

MAX_SAMPLES = 4096
"""Samples that a regression is fitted to: the kernel matrix has their square."""
TRIED_ON = 1024
"""Samples that the choice is made on."""
POWERS = (0.0, 0.5, 1.0)
"""Powers of the spread by which components count that are tried."""
LENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Lengths of the kernel that are tried, in root mean square distances of a sample from the mean."""
RIDGES = (1e-15, 1e-12, 1e-9, 1e-6, 1e-3)
"""Ridges that are tried, by the largest eigenvalue of the kernel matrix."""
MIN_SPREAD = 1e-10
"""Components with a smaller spread, relative to the largest, are rounding."""


@dataclasses.dataclass(frozen=True)
class KernelRegression:
    """A regression from entries to coefficients.

    Attributes
    ----------
    basis : OperatorBasis
    mean : ndarray, shape (q m,)
        Of the z-scored entries.
    projection : ndarray, shape (q m, d)
        To components in units of the length of the kernel.
    features : ndarray, shape (S, d)
        Of the samples.
    offset : ndarray, shape (R,)
        Mean coefficients.
    weights : ndarray, shape (S, R)
    """

    basis: OperatorBasis
    mean: FloatArray
    projection: FloatArray
    features: FloatArray
    offset: FloatArray
    weights: FloatArray

    def __call__(self, A: FloatArray) -> ApproximateInverse:
        """Return the approximate inverses of the matrices A (B, n, n)."""
        z, s = self.basis.sampler(A)
        return self.basis.inverse_of(self.coefficients(z.reshape(len(A), -1)), s)

    def coefficients(self, z: NDArray[np.floating]) -> FloatArray:
        """Return the coefficients (B, R) from z-scored entries (B, q m)."""
        return kernel((z - self.mean) @ self.projection, self.features) @ self.weights + self.offset


def fit(basis: OperatorBasis, z: NDArray[np.floating], c: FloatArray, weight: FloatArray) -> KernelRegression:
    """Choose power, length and ridge on samples left out, then fit to the first `MAX_SAMPLES` samples.

    Samples count by their weights in the choice, and by the squares of these in the regression.

    Parameters
    ----------
    basis : OperatorBasis
    z : ndarray, shape (S, q m)
        Entries of S samples; see `OperatorBasis.coefficients` for these three.
    c : ndarray, shape (S, R)
    weight : ndarray, shape (S,)
    """
    # 1. Principal components of the entries, each with spread one.
    z, c = z[:MAX_SAMPLES].astype(np.float64), c[:MAX_SAMPLES]
    w = (weight[:MAX_SAMPLES] / np.sqrt(np.mean(weight[:MAX_SAMPLES] ** 2)))[:, None]
    mean, offset = z.mean(axis=0), np.average(c, axis=0, weights=w[:, 0] ** 2)
    _, spread, vectors = np.linalg.svd(z - mean, full_matrices=False)
    kept = spread > MIN_SPREAD * max(spread[0], np.finfo(np.float64).tiny)
    spread, vectors = spread[kept] / np.sqrt(len(z)), vectors[kept]

    # 2. The choice, by the errors of samples left out.
    best, projection = (np.inf, 0.0), np.zeros((z.shape[1], 1))
    few, u = z[:TRIED_ON] - mean, w[:TRIED_ON]
    target = (c[:TRIED_ON] - offset) * u
    for power, length in itertools.product(POWERS, LENGTHS) if kept.any() else ():
        directions = vectors.T * spread ** (power - 1)
        directions /= length * np.sqrt(np.sum(spread ** (2 * power)))
        features = few @ directions
        values, V = np.linalg.eigh(u * kernel(features, features) * u.T)
        rotated = V.T @ target
        for ridge in RIDGES:
            inverse = 1 / (np.maximum(values, 0.0) + ridge * values[-1])
            left_out = (V * inverse) @ rotated / np.sum(V**2 * inverse, axis=1, keepdims=True)
            error = float(np.sum(left_out**2))
            if error < best[0]:
                best, projection = (error, ridge), directions

    # 3. The fit to all samples.
    features = (z - mean) @ projection
    K = w * kernel(features, features) * w.T
    K[np.diag_indices(len(K))] += max(best[1], RIDGES[0]) * np.linalg.norm(K, 2)
    weights = w * scipy.linalg.solve(K, w * (c - offset), assume_a="pos")
    return KernelRegression(basis, mean, projection, features, offset, weights)


def kernel(u: FloatArray, v: FloatArray) -> FloatArray:
    """Return exp(-||u_i - v_j||^2 / 2) for all rows of u and v.

    Examples
    --------
    >>> import numpy as np
    >>> kernel(np.array([[0.0], [2.0]]), np.array([[0.0]])).ravel().round(4)
    array([1.    , 0.1353])
    """
    squares = np.sum(u**2, axis=1)[:, None] + np.sum(v**2, axis=1) - 2 * u @ v.T
    return np.asarray(np.exp(-0.5 * np.maximum(squares, 0.0)))
