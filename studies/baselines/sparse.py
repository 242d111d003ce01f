"""Total variation and sparse signals: exact solution paths by least angle regression, and matching pursuit.

A path holds x for every value of alpha at once: between its knots x is linear in alpha [1]_. Total variation in one
dimension is such a problem in the jumps of x, whose first entry is not penalised; scikit-learn's `lars_path` solves it.
One system at a time.

References
----------
.. [1] B. Efron, T. Hastie, I. Johnstone and R. Tibshirani, "Least angle regression", Annals of Statistics 32 (2004).
.. [2] L. I. Rudin, S. Osher and E. Fatemi, "Nonlinear total variation based noise removal algorithms", Physica D 60
   (1992).
.. [3] Y. C. Pati, R. Rezaiifar and P. S. Krishnaprasad, "Orthogonal matching pursuit", Asilomar Conference on Signals,
   Systems and Computers (1993).
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np

from algebraformer.linalg import FloatArray

MAX_KNOTS = 1000
"""Where a path ends at the latest."""


@dataclasses.dataclass(frozen=True)
class SparsePath:
    """Solutions x(alpha) of one system, from the most regular to the least.

    Attributes
    ----------
    alpha : ndarray, shape (K,)
        Descending; the number of steps, ascending, where there is no alpha.
    x : ndarray, shape (K, n)
    linear : bool
        Whether x is linear between the knots, so that everything between them is a solution, too.
    """

    alpha: FloatArray
    x: FloatArray
    linear: bool = True

    def by_discrepancy(self, A: FloatArray, b: FloatArray, noise_norm: float) -> FloatArray:
        """Return the first x (n,) on the path with ||A x - b||_2 <= noise_norm; the last one where there is none."""
        residuals = b - self.x @ A.T  # (K, m)
        small = np.linalg.norm(residuals, axis=1) <= noise_norm
        if not small.any():
            return self.x[-1]
        k = int(np.argmax(small))
        if k == 0 or not self.linear:
            return self.x[k]
        r, step = residuals[k - 1], residuals[k] - residuals[k - 1]  # ||r + t step|| = noise_norm with 0 < t <= 1
        a, half, c = step @ step, r @ step, r @ r - noise_norm**2
        t = c / (-half + np.sqrt(max(half**2 - a * c, 0.0)))
        return self.x[k - 1] + t * (self.x[k] - self.x[k - 1])

    def by_oracle(self, x: FloatArray) -> FloatArray:
        """Return what is nearest to the true x (n,) on the whole path."""
        if not self.linear or len(self.x) == 1:
            return self.x[np.argmin(np.linalg.norm(self.x - x, axis=1))]
        start, step = self.x[:-1], np.diff(self.x, axis=0)
        lengths = np.sum(step**2, axis=1)
        t = np.sum((x - start) * step, axis=1) / np.where(lengths > 0, lengths, 1.0)
        nearest = start + np.clip(t, 0, 1)[:, None] * step
        return nearest[np.argmin(np.linalg.norm(nearest - x, axis=1))]


def total_variation(A: FloatArray, b: FloatArray) -> SparsePath:
    """Return the path of argmin ||A x - b||_2^2 / 2 + alpha sum_i |x_{i+1} - x_i| [2]_.

    Parameters
    ----------
    A : ndarray, shape (m, n)
    b : ndarray, shape (m,)

    Examples
    --------
    >>> import numpy as np
    >>> path = total_variation(np.eye(4), np.array([0.0, 0.0, 3.0, 3.0]))
    >>> path.alpha.round(12)
    array([3., 0.])
    >>> path.x.round(12)
    array([[1.5, 1.5, 1.5, 1.5],
           [0. , 0. , 3. , 3. ]])
    """
    level = A.sum(axis=1)  # what a constant signal gives
    unit = level / np.linalg.norm(level)
    steps = np.cumsum(A[:, ::-1], axis=1)[:, ::-1][:, 1:]  # (m, n - 1): what a step before each later entry gives
    path = lasso(steps - np.outer(unit, unit @ steps), b - unit * (unit @ b))
    x = np.concatenate([np.zeros((len(path.x), 1)), np.cumsum(path.x, axis=1)], axis=1)
    x += ((b - x @ A.T) @ unit / np.linalg.norm(level))[:, None]
    return SparsePath(path.alpha, x)


def lasso(A: FloatArray, b: FloatArray) -> SparsePath:
    """Return the path of argmin ||A x - b||_2^2 / 2 + alpha ||x||_1, down to 1.2e-7 of the alpha that gives zero.

    Parameters
    ----------
    A : ndarray, shape (m, n)
    b : ndarray, shape (m,)
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import lars_path

    largest = np.max(np.abs(b @ A))
    unit = largest / len(b) if largest > 0 else 1.0  # so that alpha / m starts at 1: scikit-learn ends it at 1.2e-7
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a path that rounding stops is used as far as it goes
        alpha, _, x = lars_path(A, b / unit, method="lasso", max_iter=MAX_KNOTS)
    return SparsePath(unit * len(b) * alpha, unit * x.T)


def matching_pursuit(A: FloatArray, b: FloatArray) -> SparsePath:
    """Return the solutions with 0, 1, 2, ... entries that orthogonal matching pursuit finds [3]_.

    Parameters
    ----------
    A : ndarray, shape (m, n)
    b : ndarray, shape (m,)
    """
    from sklearn.linear_model import orthogonal_mp

    norms = np.linalg.norm(A, axis=0)
    scaled = A / np.where(norms > 0, norms, 1.0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Orthogonal matching pursuit ended prematurely", RuntimeWarning)
        path = orthogonal_mp(scaled, b, n_nonzero_coefs=min(A.shape), return_path=True)
    steps = np.atleast_2d(path.reshape(A.shape[1], -1).T / np.where(norms > 0, norms, 1.0))
    x = np.concatenate([np.zeros((1, A.shape[1])), steps])
    return SparsePath(np.arange(len(x), dtype=np.float64), x, linear=False)
