"""Random signals on the unit interval: the priors from which noisy families draw what is to be recovered.

Every signal is a function of u in [0, 1], drawn with random numbers that do not depend on the grid (spikes excepted,
which occupy one entry each), and is scaled so that its root mean square is 1. All numbers here are our choices.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from algebraformer.problems.base import FloatArray, log_uniform

MAX_JUMPS = 8
"""Most jumps of a piecewise constant signal."""
MODES = 48
"""Modes of a smooth signal."""
LENGTHS = (0.04, 0.2)
"""Limits of the correlation length of a smooth signal."""
MAX_SPIKES = 6
"""Most spikes of a signal."""


def piecewise(rng: np.random.Generator, u: FloatArray) -> FloatArray:
    """Return a piecewise constant signal: 1 to 8 jumps anywhere, levels N(0, 1)."""
    jumps = int(rng.integers(1, MAX_JUMPS + 1))
    levels, places = rng.standard_normal(jumps + 1), np.sort(rng.random(jumps))
    return normalized(levels[np.searchsorted(places, u)])


def smooth(rng: np.random.Generator, u: FloatArray) -> FloatArray:
    """Return a stationary Gaussian field with covariance exp(-(u - u')^2 / (2 l^2)), made periodic over length 2.

    x(u) = sum_{k=0..48} s_k (a_k cos(k pi u) + b_k sin(k pi u)), a_k, b_k ~ N(0, 1), s_k = exp(-(k pi l)^2 / 4) with l
    log-uniform in (0.04, 0.2).
    """
    k = np.arange(MODES + 1)
    scale = np.exp(-((k * np.pi * log_uniform(rng, LENGTHS)) ** 2) / 4)
    a, b = scale * rng.standard_normal((2, MODES + 1))
    angle = np.pi * k * u[:, None]
    return normalized(np.sum(a * np.cos(angle) + b * np.sin(angle), axis=1))


def spikes(rng: np.random.Generator, u: FloatArray) -> FloatArray:
    """Return 1 to 6 spikes of one entry each, anywhere, with heights U(0.5, 1.5) of either sign."""
    count = int(rng.integers(1, MAX_SPIKES + 1))
    heights = rng.uniform(0.5, 1.5, count) * rng.choice((-1.0, 1.0), count)
    x = np.zeros(len(u))
    np.add.at(x, (rng.random(count) * len(u)).astype(int), heights)
    return normalized(x)


def mixture(rng: np.random.Generator, u: FloatArray) -> FloatArray:
    """Return a sum of the three with weights from the flat Dirichlet distribution."""
    weights = rng.dirichlet(np.ones(3))
    parts = [piecewise(rng, u), smooth(rng, u), spikes(rng, u)]
    return normalized(sum((w * part for w, part in zip(weights, parts, strict=True)), np.zeros(len(u))))


def normalized(x: FloatArray) -> FloatArray:
    """Return x / (||x||_2 / sqrt(n))."""
    return x / np.sqrt(np.mean(x**2))


DRAWS: dict[str, Callable[[np.random.Generator, FloatArray], FloatArray]] = {
    "piecewise": piecewise,
    "smooth": smooth,
    "spikes": spikes,
    "mixture": mixture,
}
CLASSICAL = "classical"
"""The one test signal with which the literature introduces a problem; each family has its own."""
PRIORS = (*DRAWS, CLASSICAL)
"""Names of the priors; `Systems.params["prior"]` holds positions in this tuple."""
