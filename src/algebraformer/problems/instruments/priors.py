"""Densities that instruments draw beside those of their field."""

from __future__ import annotations

import numpy as np

from algebraformer.problems.sampling import FloatArray, log_uniform

MODES = 40
"""Modes of the Gaussian field: enough for its shortest correlation length."""
LENGTHS = (0.04, 0.3)
"""Limits of the correlation length, log-uniform."""
EDGE = 0.05
"""Share of the range over which a density may fall to its ends."""


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
