"""The classical answers to noise on A and b.

- LU, which takes the noisy system for the clean one.
- Tikhonov's method of orders 0, 1 and 2; lambda by cross-validation, by the discrepancy principle with the expected
  norm of the noise, or by the oracle that knows x.
- LMMSE: the best affine estimate of x from b, given A [1]_. It has mean and covariance of x from a sample of the
  family, and the standard deviations of the noise. What A x misses because A is noisy counts as further noise on b,
  white with variance s^2 E ||x||^2.
- LMMSE, A estimated: the same with the best affine estimate of A in place of A, from mean and principal components of
  the sample's matrices. What b - A x has left then is neither white nor small: its covariance is measured on further
  systems of the sample, with noise of the same level.
- linear, b -> x: the best affine estimate of x from b alone, fitted on the sample with noise of the same level.

References
----------
.. [1] S. M. Kay, "Fundamentals of Statistical Signal Processing: Estimation Theory", Prentice Hall (1993), chapter 12.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from algebraformer.linalg import EPS, FloatArray
from algebraformer.numerics import regularization
from algebraformer.problems import Systems
from studies.baselines import lmmse
from studies.noise.systems import deviations

LU = "LU"
TIKHONOV, DISCREPANCY, ORACLE = "Tikhonov, cross-validation", "Tikhonov, discrepancy", "Tikhonov, oracle"
LMMSE, LMMSE_A, LINEAR = "LMMSE", "LMMSE, A estimated", "linear, b → x"
ORDERS = (0, 1, 2)


def named(choice: str, order: int) -> str:
    """Return the name of Tikhonov's method of an order."""
    return f"{choice}, order {order}"


@dataclasses.dataclass(frozen=True)
class Prior:
    """Means and covariances of a family.

    Attributes
    ----------
    x_mean : ndarray, shape (n,)
    x_covariance : ndarray, shape (n, n)
    A_mean : ndarray, shape (n * n,)
    components : ndarray, shape (r, n * n)
        Principal components of A, orthonormal.
    variance : ndarray, shape (r,)
        Their variances.
    """

    x_mean: FloatArray
    x_covariance: FloatArray
    A_mean: FloatArray
    components: FloatArray
    variance: FloatArray

    @property
    def x_square(self) -> float:
        """E ||x||^2."""
        return float(np.trace(self.x_covariance) + self.x_mean @ self.x_mean)

    def estimated(self, A: FloatArray, deviation: FloatArray) -> FloatArray:
        """Return the best affine estimates of matrices from A (B, n, n) with white noise of these deviations (B,)."""
        gain = self.variance / (self.variance + deviation[:, None] ** 2)  # (B, r)
        coefficients = (A.reshape(len(A), -1) - self.A_mean) @ self.components.T
        return (self.A_mean + (gain * coefficients) @ self.components).reshape(A.shape)


def fit(clean: Systems, matrices: int) -> Prior:
    """Return the moments of a family from a sample of clean systems; those of A from the first `matrices`."""
    A = clean.A[:matrices].reshape(matrices, -1)
    A_mean = A.mean(axis=0)
    _, s, components = np.linalg.svd(A - A_mean, full_matrices=False)
    keep = s > max(A.shape) * EPS * s[0]  # the others are rounding
    covariance = np.cov(clean.x, rowvar=False)
    return Prior(clean.x.mean(axis=0), covariance, A_mean, components[keep], s[keep] ** 2 / (matrices - 1))


def affine(A: FloatArray, b: FloatArray, mean: FloatArray, covariance: FloatArray, noise: FloatArray) -> FloatArray:
    """Return mean + C A' (A C A' + R)^-1 (b - A mean), (B, n), for b = A x + noise of covariance R, (n, n).

    R may be singular, and so may C: what rounding adds to A C A' is added to the diagonal as well.
    """
    across = A @ covariance  # (B, n, n)
    spread = across @ A.mT
    size = np.trace(spread, axis1=1, axis2=2)[:, None, None]
    weights = np.linalg.solve(spread + noise + EPS * size * np.eye(len(noise)), (b - A @ mean)[..., None])
    return mean + (across.mT @ weights)[..., 0]


def answers(test: Systems, sample: Systems, prior: Prior) -> dict[str, FloatArray]:
    """Return what every classical method answers, (B, n), by name.

    Parameters
    ----------
    test : Systems
        Noisy systems, with the x of the clean ones for the oracle.
    sample : Systems
        Others with noise of the same level and place, and not among the matrices of the prior.
    prior : Prior
    """
    A, b = test.A, test.b
    s, t = deviations(A, b, test.params)
    white = np.sqrt(t**2 + s**2 * prior.x_square)
    seen = prior.estimated(sample.A, deviations(sample.A, sample.b, sample.params)[0])
    rest = sample.b - (seen @ sample.x[..., None])[..., 0]
    known = prior.x_mean, prior.x_covariance
    found: dict[str, FloatArray] = {LU: np.linalg.solve(A, b[..., None])[..., 0].astype(np.float64)}
    for order in ORDERS:
        path = regularization.tikhonov(regularization.decompose(A, order), b)
        choices = {
            TIKHONOV: regularization.cross_validation(path),
            DISCREPANCY: regularization.discrepancy(path, np.sqrt(A.shape[1]) * white),
            ORACLE: regularization.oracle(path, test.x),
        }
        found |= {named(choice, order): path.chosen(index) for choice, index in choices.items()}
    return found | {
        LMMSE: lmmse.known_matrix(A, b, *known, white),
        LMMSE_A: affine(prior.estimated(A, s), b, *known, rest.T @ rest / len(rest)),
        LINEAR: lmmse.fit(sample.b, sample.x)(b),
    }
