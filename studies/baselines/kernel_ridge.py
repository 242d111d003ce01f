"""The operator head with its network replaced by kernel ridge regression from the same entries.

The entries that are read are centred and turned into principal components, which count by a power of their spread. A
Gaussian or a Matern kernel of smoothness 5/2 compares two systems; kernel, power, length and ridge are those with the
least error on samples left out, one at a time and in closed form [1]_. This is the mean of a Gaussian process. The cost
of a prediction grows with the number of samples.

References
----------
.. [1] C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press (2006), sec. 4.2.1
   and 5.4.2.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.sparse.linalg import eigsh

from algebraformer.linalg import FloatArray
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.numerics.preconditioner import ApproximateInverse

MAX_SAMPLES = 4096
"""Samples that a regression is fitted to: the kernel matrix has their square."""
TRIED_ON = 512
"""Samples that the choice is made on."""
COUNTED = 64
"""Most directions of the targets whose errors count in the choice: those of the largest spread."""
POWERS = (0.0, 0.5, 1.0)
"""Powers of the spread by which components count that are tried."""
LENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
"""Lengths of the kernel that are tried, in root mean square distances of a sample from the mean."""
RIDGES = (1e-15, 1e-13, 1e-11, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
"""Ridges that are tried, by the largest eigenvalue of the kernel matrix of these samples."""
MIN_SPREAD = 1e-10
"""Components with a smaller spread, relative to the largest, are rounding."""

Kernel = Callable[[FloatArray, FloatArray], FloatArray]


@dataclasses.dataclass(frozen=True)
class VectorRegression:
    """A regression from entries to vectors.

    Attributes
    ----------
    kernel : callable
        `gaussian` or `matern`.
    mean : ndarray, shape (q m,)
        Of the z-scored entries.
    projection : ndarray, shape (q m, d)
        To components in units of the length of the kernel.
    features : ndarray, shape (S, d)
        Of the samples.
    offset : ndarray, shape (R,)
        Mean of the vectors.
    weights : ndarray, shape (S, R)
    ridge : float
        What was added to the diagonal of the weighted kernel matrix.
    """

    kernel: Kernel
    mean: FloatArray
    projection: FloatArray
    features: FloatArray
    offset: FloatArray
    weights: FloatArray
    ridge: float

    def __call__(self, z: NDArray[np.floating]) -> FloatArray:
        """Return the vectors (B, R) from z-scored entries (B, q m)."""
        return self.kernel((z - self.mean) @ self.projection, self.features) @ self.weights + self.offset


@dataclasses.dataclass(frozen=True)
class KernelRegression:
    """A regression from entries to coefficients of the inverse.

    Attributes
    ----------
    basis : OperatorBasis
    coefficients : VectorRegression
        Takes z-scored entries (B, q m) to coefficients (B, R).
    """

    basis: OperatorBasis
    coefficients: VectorRegression

    def __call__(self, A: FloatArray) -> ApproximateInverse:
        """Return the approximate inverses of the matrices A (B, n, n)."""
        z, s = self.basis.sampler(A)
        return self.basis.inverse_of(self.coefficients(z.reshape(len(A), -1)), s)


def fit(basis: OperatorBasis, z: NDArray[np.floating], c: FloatArray, weight: FloatArray) -> KernelRegression:
    """Fit coefficients of the inverse, see `regression`.

    Parameters
    ----------
    basis : OperatorBasis
    z : ndarray, shape (S, q m)
        Entries of S samples; see `OperatorBasis.coefficients` for these three.
    c : ndarray, shape (S, R)
    weight : ndarray, shape (S,)
    """
    return KernelRegression(basis, regression(z, c, weight))


def regression(z: NDArray[np.floating], y: FloatArray, weight: FloatArray) -> VectorRegression:
    """Choose kernel, power, length and ridge on samples left out, then fit to the first `MAX_SAMPLES` samples.

    Samples count by their weights in the choice, and by the squares of these in the regression.

    Parameters
    ----------
    z : ndarray, shape (S, q m)
        Entries of S samples.
    y : ndarray, shape (S, R)
        Vectors to predict.
    weight : ndarray, shape (S,)
    """
    # 1. Principal components of the entries, each with spread one.
    z, y = z[:MAX_SAMPLES].astype(np.float64), y[:MAX_SAMPLES]
    w = (weight[:MAX_SAMPLES] / np.sqrt(np.mean(weight[:MAX_SAMPLES] ** 2)))[:, None]
    mean, offset = z.mean(axis=0), np.average(y, axis=0, weights=w[:, 0] ** 2)
    _, spread, vectors = np.linalg.svd(z - mean, full_matrices=False)
    kept = spread > MIN_SPREAD * max(spread[0], np.finfo(np.float64).tiny)
    spread, vectors = spread[kept] / np.sqrt(len(z)), vectors[kept]

    # 2. The choice, by the errors of samples left out.
    best, kernel, ridge = np.inf, gaussian, 0.0
    projection = np.zeros((z.shape[1], 1))
    few, u = z[:TRIED_ON] - mean, w[:TRIED_ON]
    target = rotated((y[:TRIED_ON] - offset) * u)
    for power, length in itertools.product(POWERS, LENGTHS) if kept.any() else ():
        directions = vectors.T * spread ** (power - 1)
        directions /= length * np.sqrt(np.sum(spread ** (2 * power)))
        features = few @ directions
        for tried in (gaussian, matern):
            values, V = np.linalg.eigh(u * tried(features, features) * u.T)
            coordinates = V.T @ target
            errors = [left_out(values, V, coordinates, share * values[-1]) for share in RIDGES]
            if min(errors) < best:
                best, kernel, projection = min(errors), tried, directions
                ridge = RIDGES[int(np.argmin(errors))] * values[-1]

    # 3. The fit to all samples.
    features = (z - mean) @ projection
    K = w * kernel(features, features) * w.T
    largest = float(eigsh(K, k=1, v0=np.ones(len(K)), return_eigenvectors=False)[0])
    ridge = max(ridge, RIDGES[0] * largest)  # noise of a sample does not grow with their number
    K[np.diag_indices(len(K))] += ridge
    weights = w * scipy.linalg.solve(K, w * (y - offset), assume_a="pos")
    return VectorRegression(kernel, mean, projection, features, offset, weights, ridge)


def rotated(target: FloatArray) -> FloatArray:
    """Return the coordinates of targets (S, R) in their `COUNTED` directions of largest spread, (S, R) where R is less.

    Sums of squared errors over all outputs are the same in any orthonormal directions; the others hardly count.
    """
    if target.shape[1] <= COUNTED:
        return target
    values, vectors = np.linalg.eigh(target @ target.T)
    return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0)))[:, ::-1][:, :COUNTED])


def left_out(values: FloatArray, V: FloatArray, coordinates: FloatArray, ridge: float) -> float:
    """Return the sum of squares of the errors of each sample's prediction from all others.

    Parameters
    ----------
    values : ndarray, shape (S,)
        Eigenvalues of the kernel matrix.
    V : ndarray, shape (S, S)
        Its eigenvectors.
    coordinates : ndarray, shape (S, R)
        V^T times the targets.
    ridge : float
    """
    inverse = 1 / (np.maximum(values, 0.0) + ridge)
    errors = (V * inverse) @ coordinates / np.sum(V**2 * inverse, axis=1, keepdims=True)
    return float(np.sum(errors**2))


def gaussian(u: FloatArray, v: FloatArray) -> FloatArray:
    """Return exp(-||u_i - v_j||^2 / 2) for all rows of u and v.

    Examples
    --------
    >>> import numpy as np
    >>> gaussian(np.array([[0.0], [2.0]]), np.array([[0.0]])).ravel().round(4)
    array([1.    , 0.1353])
    """
    return np.asarray(np.exp(-0.5 * squares(u, v)))


def matern(u: FloatArray, v: FloatArray) -> FloatArray:
    """Return (1 + t + t^2 / 3) exp(-t), t = sqrt(5) ||u_i - v_j||, for all rows of u and v.

    Examples
    --------
    >>> import numpy as np
    >>> matern(np.array([[0.0], [2.0]]), np.array([[0.0]])).ravel().round(4)
    array([1.    , 0.1387])
    """
    t = np.sqrt(5 * squares(u, v))
    return np.asarray((1 + t + t**2 / 3) * np.exp(-t))


def squares(u: FloatArray, v: FloatArray) -> FloatArray:
    """Return ||u_i - v_j||^2 for all rows of u and v."""
    found = np.sum(u**2, axis=1)[:, None] + np.sum(v**2, axis=1) - 2 * u @ v.T
    return np.asarray(np.maximum(found, 0.0))
