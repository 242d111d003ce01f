"""Posterior predictive checks of estimates [1]_: do residual and estimate look like those of the family's systems?

Five numbers are computed of every estimate, and each has a range that held-out systems of the family keep to. The
centre of the range moves with the predicted noise level. What no number can tell is an instrument or a signal whose
data another signal of the family would give as well: a blur that is too wide, for instance, looks like a smoother
signal.

References
----------
.. [1] A. Gelman, X.-L. Meng and H. Stern, "Posterior predictive assessment of model fitness via realized
   discrepancies", Statistica Sinica 6 (1996).
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray

NAMES = ("misfit", "neighbours", "outlier", "middle", "roughness")
"""What `statistics` returns."""
FALSE_ALARMS = 0.015
"""Share of the family's systems for which one of the numbers is outside of its range."""
SMALL_SAMPLE = 20
"""Ranges are wider by this over the size of the sample that they are taken from: its ends are uncertain."""
UNLIMITED = 1e300
"""A limit that nothing reaches; finite, as all numbers of a checkpoint are."""
TINY = 1e-300
"""Where logarithms begin."""


def statistics(A: FloatArray, b: FloatArray, x: FloatArray, noise: FloatArray) -> FloatArray:
    """Return five numbers that do not depend on the units of A and b.

    Parameters
    ----------
    A : ndarray, shape (B, m, n)
    b : ndarray, shape (B, m)
    x : ndarray, shape (B, n)
        Estimates.
    noise : ndarray, shape (B,)
        Predicted relative noise levels.

    Returns
    -------
    ndarray, shape (B, 5)
        Of the residual r = b - A x over noise times the root mean square of b: the logarithm of its root mean square,
        the correlation of neighbours times sqrt(m), the logarithm of the largest entry over the root mean square, and
        the logarithm of the mean power between an eighth and a half of the highest frequency. Of x: the logarithm of
        mean |x_{i+1} - x_i| over the root mean square.
    """
    m = b.shape[1]
    size = np.sqrt(np.mean(b**2, axis=1)) * noise
    r = (b - (A @ x[:, :, None])[..., 0]) / np.maximum(size, TINY)[:, None]
    rms = np.maximum(np.sqrt(np.mean(r**2, axis=1)), TINY)
    white = r / rms[:, None]
    neighbours = np.sum(white[:, 1:] * white[:, :-1], axis=1) / math.sqrt(m)

    power = np.abs(np.fft.rfft(r, axis=1)) ** 2 / m
    low = min(power.shape[1] // 8, power.shape[1] - 1)
    middle = power[:, low : max(low + 1, power.shape[1] // 2)].mean(axis=1)

    steps = np.abs(np.diff(x, axis=1)).sum(axis=1) / max(1, x.shape[1] - 1)
    roughness = steps / np.maximum(np.sqrt(np.mean(x**2, axis=1)), TINY)
    logs = np.log(np.maximum((rms, np.abs(white).max(axis=1), middle, roughness), TINY))
    return np.stack((logs[0], neighbours, *logs[1:]), axis=1)


@dataclasses.dataclass(frozen=True)
class Ranges:
    """Ranges of the five numbers, as a family's systems have them.

    Attributes
    ----------
    trend : ndarray, shape (3, 5)
        Coefficients of 1, l and l^2 of the middle of each range, l = log noise + 4.6.
    limits : ndarray, shape (5, 2)
        How far below and above this middle a number may be.
    """

    trend: FloatArray
    limits: FloatArray

    def keep(self, numbers: FloatArray, noise: FloatArray) -> NDArray[np.bool_]:
        """Say of which estimates all numbers (B, 5) are inside; of NaN they are not."""
        left = numbers - powers(noise) @ self.trend
        return np.all((left >= self.limits[:, 0]) & (left <= self.limits[:, 1]), axis=1)

    @classmethod
    def fitted(cls, numbers: FloatArray, noise: FloatArray) -> Ranges:
        """Return the ranges of a sample of a family, numbers (B, 5) and predicted noise levels (B,)."""
        X = powers(noise)
        trend = np.asarray(np.linalg.lstsq(X, numbers, rcond=None)[0], dtype=np.float64)
        tail = FALSE_ALARMS / len(NAMES) / 2
        ends = np.quantile(numbers - X @ trend, (tail, 0.5, 1 - tail), axis=0)
        limits: FloatArray = ends[1] + (1 + SMALL_SAMPLE / len(noise)) * (ends[[0, 2]] - ends[1])
        return cls(trend, limits.T)

    @classmethod
    def unlimited(cls) -> Ranges:
        """Return ranges that everything keeps to."""
        limits = np.tile((-UNLIMITED, UNLIMITED), (len(NAMES), 1))
        return cls(np.zeros((3, len(NAMES))), limits)


def powers(noise: FloatArray) -> FloatArray:
    """Return 1, l and l^2 (B, 3) with l = log noise + 4.6, which is about 0 at one per cent."""
    level = np.log(np.maximum(noise, TINY)) + 4.6
    return np.stack((np.ones_like(level), level, level**2), axis=1)
