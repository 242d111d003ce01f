"""Densities that instruments draw beside those of their field."""

from __future__ import annotations

import numpy as np

from algebraformer.problems.sampling import FloatArray, Limits, log_uniform

MODES = 40
"""Modes of the Gaussian field: enough for its shortest correlation length."""
LENGTHS = (0.04, 0.3)
"""Limits of the correlation length, log-uniform."""
EDGE = 0.05
"""Share of the range over which a density may fall to its ends."""
PLACES, WIDTHS = (0.03, 0.97), (0.015, 0.15)
"""Limits of centre and standard deviation of a peak, over the range."""


def peaks(
    rng: np.random.Generator,
    n: int,
    count: tuple[int, int] = (1, 4),
    places: Limits = PLACES,
    widths: Limits = WIDTHS,
) -> FloatArray:
    """Return a sum of normal peaks on (0, 1), with mean 1.

    Parameters
    ----------
    rng : numpy.random.Generator
    n : int
        Points.
    count : pair of int
        Limits of the number of peaks.
    places, widths : pair of float
        Limits of centres, uniform, and of standard deviations, log-uniform.

    Returns
    -------
    ndarray, shape (n,)

    Examples
    --------
    >>> import numpy as np
    >>> x = peaks(np.random.default_rng(0), 100, count=(1, 1), places=(0.4, 0.4))
    >>> float(x.mean().round(12)), int(np.argmax(x)) in (39, 40)
    (1.0, True)
    """
    number = rng.integers(count[0], count[1] + 1)
    low, high = np.log(widths[0]), np.log(widths[1])
    place, width = rng.uniform(places[0], places[1], number), np.exp(rng.uniform(low, high, number))
    z = (np.linspace(0, 1, n)[:, None] - place) / width
    density = np.exp(-(z**2) / 2) @ (rng.dirichlet(np.ones(number)) / width)
    total: FloatArray = density / max(density.mean(), np.finfo(float).tiny)
    return total


def smooth_density(rng: np.random.Generator, n: int) -> FloatArray:
    """Return log(1 + exp(g)) of a smooth Gaussian field g on (0, 1), with mean 1: humps over an empty floor.

    Returns
    -------
    ndarray, shape (n,)
    """
    u, k = np.linspace(0, 1, n), np.arange(MODES)
    scale = np.exp(-((k * np.pi * log_uniform(rng, LENGTHS)) ** 2) / 4)
    a, b = scale * rng.standard_normal((2, MODES))
    angle = np.pi * k * u[:, None]
    g = np.cos(angle) @ a + np.sin(angle) @ b
    g = g / np.sqrt(np.mean(g**2)) * rng.uniform(1, 4) - rng.uniform(0, 3)
    density = np.logaddexp(0, 2 * g) * np.clip((1 - u) / EDGE, 0, 1) * np.clip(u / EDGE + 0.2, 0, 1)
    total: FloatArray = density / max(density.mean(), np.finfo(float).tiny)
    return total
