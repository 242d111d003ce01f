"""Random numbers addressed by (seed, index), the distributions that families share, and batches of indices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from algebraformer.errors import ConfigurationError
from algebraformer.validation import is_whole

FloatArray = NDArray[np.float64]
Limits = tuple[float, float]


def generator(seed: int, index: int, stream: int = 0) -> np.random.Generator:
    """Return the random generator of one system, addressed by Philox's counter: indices share no state.

    Parameters
    ----------
    seed, index, stream : int
        Whole numbers from 0 to 2**64 - 1. Different streams of one (seed, index) are independent.

    Raises
    ------
    ConfigurationError
        A seed or an index is not such a number.
    """
    for what, value in (("seed", seed), ("index", index)):
        if not (is_whole(value) or isinstance(value, np.integer)) or not 0 <= value < 2**64:
            raise ConfigurationError(f"{what} must be a whole number from 0 to 2**64 - 1, received {value!r}")
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=np.array([0, 0, 0, index], dtype=np.uint64)))


def uniform(rng: np.random.Generator, limits: Limits) -> float:
    """Draw one number from U(low, high)."""
    return limits[0] + (limits[1] - limits[0]) * rng.random()


def log_uniform(rng: np.random.Generator, limits: Limits) -> float:
    """Draw one number whose logarithm is uniform between those of low and high."""
    return float(limits[0] * (limits[1] / limits[0]) ** rng.random())


def draw_modes(rng: np.random.Generator, count: int, scale: float = 1.0) -> dict[str, FloatArray]:
    """Draw c_k ~ N(0, (scale / k)^2) and phi_k ~ U(0, 2 pi), k = 1 ... count, for `cosine_series`."""
    k = np.arange(1, count + 1)
    return {"c": scale * rng.standard_normal(count) / k, "phi": rng.uniform(0, 2 * np.pi, count)}


def cosine_series(c: FloatArray, phi: FloatArray, x: FloatArray) -> FloatArray:
    """Return sum_k c_k cos(k pi x / 2 + phi_k) (B, len(x)) for c and phi (B, m)."""
    k = np.arange(1, c.shape[1] + 1)
    angle = 0.5 * np.pi * k[:, None] * x + phi[..., None]  # (B, m, len(x))
    return np.asarray(np.sum(c[..., None] * np.cos(angle), axis=1), dtype=np.float64)
