"""How far an answer is from the truth, in the terms of the fields."""

from __future__ import annotations

import numpy as np
from scipy.signal import find_peaks
from scipy.stats import wasserstein_distance

from algebraformer.linalg import FloatArray

EDGE = 0.1
"""The main peak reaches down to this share of its height."""
PROMINENT, EMPTY = 0.1, 0.05
"""A peak that rises by this share of the truth's height where the truth is below that share of it is a false one."""
SEEN = 0.02
"""Bands count where the answer is at least this share of its height: elsewhere they hold zeros, which is no merit."""


def scores(x: FloatArray, truth: FloatArray, u: FloatArray) -> dict[str, float]:
    """Return the errors of one answer.

    Parameters
    ----------
    x, truth : ndarray, shape (n,)
        Densities over u, nowhere negative in the truth.
    u : ndarray, shape (n,)
        Ascending: distances in nm, or decadic logarithms of times.

    Returns
    -------
    dict
        relative_error : ||x - truth|| / ||truth||; wasserstein : the distance of both as distributions of mass one, in
        the unit of u; mean_error and width_error : of mean and standard deviation over the main peak of the truth, in
        that unit; false_peaks : their number.

    Examples
    --------
    >>> u = np.linspace(0, 10, 501)
    >>> peak = lambda mean: np.exp(-((u - mean) ** 2) / 2)
    >>> found = scores(peak(5.2), peak(5.0), u)
    >>> round(found["wasserstein"], 3), found["false_peaks"]
    (0.2, 0.0)
    """
    positive = np.maximum(x, 0.0)
    if not positive.any():
        positive = np.ones_like(x)
    top, height = int(np.argmax(truth)), float(truth.max())
    below = truth < EDGE * height
    start = int(np.max(np.flatnonzero(below[:top]), initial=-1)) + 1
    stop = int(np.min(np.flatnonzero(below[top:]), initial=len(truth) - top)) + top
    peak = slice(start, stop)
    (mean, width), (true_mean, true_width) = (moments(y[peak], u[peak]) for y in (positive, truth))
    peaks, _ = find_peaks(np.concatenate(([0.0], x, [0.0])), prominence=PROMINENT * height)
    return {
        "relative_error": float(np.linalg.norm(x - truth) / np.linalg.norm(truth)),
        "wasserstein": float(wasserstein_distance(u, u, positive, truth)),
        "mean_error": abs(mean - true_mean),
        "width_error": abs(width - true_width),
        "false_peaks": float(np.count_nonzero(truth[peaks - 1] < EMPTY * height)),
    }


def coverage(lower: FloatArray, upper: FloatArray, truth: FloatArray, x: FloatArray) -> float:
    """Return the share of points where the truth lies in the band, among those where the answer x is not near zero.

    All arrays have the shape (n,).

    Examples
    --------
    >>> coverage(np.zeros(4), np.ones(4), np.array([0.5, 2.0, 3.0, 1.0]), np.array([2.0, 2.0, 0.0, 0.0]))
    0.5
    """
    here = x >= SEEN * x.max()
    return float(np.mean(((lower <= truth) & (truth <= upper))[here]))


def moments(x: FloatArray, u: FloatArray) -> tuple[float, float]:
    """Return mean and standard deviation of u under a density; of a flat one if there is none."""
    weights = x if x.sum() > 0 else np.ones_like(x)
    mean = float(np.average(u, weights=weights))
    return mean, float(np.sqrt(np.average((u - mean) ** 2, weights=weights)))
