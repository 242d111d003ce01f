"""Scores of answers and estimates to the systems of a family."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray, normalized_mse, relative_error

GAUSS_90 = 1.6448536269514722
"""Half-width of the central 90 % interval of a normal distribution, in standard deviations."""


AMPLITUDE_BINS = ((0.0, 0.1), (0.1, 0.4), (0.4, 0.8), (0.8, 1.0))
"""Amplitudes |mean| / max |mean| that coverage is told apart by."""


class ScoredSystems(Protocol):
    """B systems with their solutions, see `problems.Systems`."""

    @property
    def A(self) -> FloatArray:
        """(B, m, n)"""

    @property
    def b(self) -> FloatArray:
        """(B, m)"""

    @property
    def x(self) -> FloatArray:
        """(B, n)"""

    @property
    def params(self) -> dict[str, NDArray[Any]]:
        """What the systems were assembled from."""


class ScoringModel(Protocol):
    """A network, see `models.Algebraformer`."""

    def scores(self, systems: ScoredSystems) -> dict[str, float]:
        """Return its scores."""


def score(model: ScoringModel, systems: ScoredSystems) -> dict[str, float]:
    """Return the scores of the bare network on a set of systems.

    Returns
    -------
    dict
        What its head measures: `answer_scores`, or `estimate_scores` for an estimate head.
    """
    return model.scores(systems)


def relative_errors(x: FloatArray, systems: ScoredSystems) -> FloatArray:
    """Return the relative errors (B,) of answers x (B, n): ||x - systems.x||_2 / ||systems.x||_2."""
    return relative_error(x[:, :, None], systems.x[:, :, None])[:, 0]


def answer_scores(x: FloatArray, systems: ScoredSystems) -> dict[str, float]:
    """Return the scores of answers x (B, n).

    Returns
    -------
    dict
        mse : mean of (x - systems.x)^2; normalized_mse : sum ||x - systems.x||^2 / sum ||systems.x||^2;
        relative_error_median and relative_error_95 : quantiles over the systems of the relative error, each the error
        of a system.
    """
    errors = sorted(relative_errors(x, systems).tolist())
    return {
        "mse": float((np.abs(x - systems.x) ** 2).mean()),
        "normalized_mse": normalized_mse(x, systems.x),
        "relative_error_median": errors[len(errors) // 2],
        "relative_error_95": errors[min(len(errors) - 1, int(0.95 * len(errors)))],
    }


def misfit(A: FloatArray, b: FloatArray, x: FloatArray, noise: FloatArray) -> FloatArray:
    """Return ||A x - b|| / (noise ||b||) (B,): about one where x fits b to the noise level. 0 where b is 0."""
    size = np.linalg.norm(b, axis=1)
    left = np.linalg.norm((A @ x[:, :, None])[..., 0] - b, axis=1)
    return left / np.where(size > 0, noise * size, 1.0)


def coverage(x: FloatArray, mean: FloatArray, std: FloatArray) -> float:
    """Return the share of the entries of x that lie in the central 90 % intervals of normal distributions."""
    return float(np.mean(np.abs(x - mean) <= GAUSS_90 * std))


def noise_levels(noise: FloatArray) -> list[tuple[float, float, NDArray[np.bool_]]]:
    """Return bounds 1, 3, 10, 30, ... of noise levels (B,), and which systems lie between two neighbours of them.

    Only those that hold any.

    Examples
    --------
    >>> import numpy as np
    >>> [(low, high, chosen.tolist()) for low, high, chosen in noise_levels(np.array([0.02, 0.004, 0.01]))]
    [(0.003, 0.01, [False, True, False]), (0.01, 0.03, [True, False, True])]
    """
    found = []
    for power in range(int(np.floor(np.log10(noise.min()))) - 1, int(np.floor(np.log10(noise.max()))) + 2):
        for low, high in ((float(f"1e{power}"), float(f"3e{power}")), (float(f"3e{power}"), float(f"1e{power + 1}"))):
            chosen = (noise >= low) & (noise < high)
            if chosen.any():
                found.append((low, high, chosen))
    return found


def estimate_scores(mean: FloatArray, std: FloatArray, noise: FloatArray, systems: ScoredSystems) -> dict[str, float]:
    """Return the scores of estimates of noisy systems: means and standard deviations (B, n), noise levels (B,).

    Returns
    -------
    dict
        relative_error_median, relative_error_90, relative_error_95 : quantiles over the systems of
        ||mean - x|| / ||x||; coverage : share of the entries of x in their 90 % intervals; "coverage, amplitude LOW to
        HIGH" : of the entries whose |mean| is between these shares of the largest one of the system, and "coverage,
        peak" : of the largest ones; noise_error_median : median of |noise_hat / noise - 1|.
    """
    inside = np.abs(systems.x - mean) <= GAUSS_90 * std
    largest = np.abs(mean).max(axis=1, keepdims=True)
    amplitude = np.abs(mean) / np.where(largest > 0, largest, 1.0)
    parts = {f"amplitude {low:g} to {high:g}": (amplitude >= low) & (amplitude < high) for low, high in AMPLITUDE_BINS}
    parts["peak"] = amplitude == 1
    errors = relative_errors(mean, systems)
    median, high, higher = np.quantile(errors, (0.5, 0.9, 0.95))
    return {
        "relative_error_median": float(median),
        "relative_error_90": float(high),
        "relative_error_95": float(higher),
        "coverage": coverage(systems.x, mean, std),
        **{f"coverage, {name}": float(np.mean(inside[part])) for name, part in parts.items() if part.any()},
        "noise_error_median": float(np.median(np.abs(noise / systems.params["noise"] - 1))),
    }
