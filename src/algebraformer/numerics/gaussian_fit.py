"""Linear fits of noisy data with a Gaussian prior, for noise and size of the unknown that nobody knows.

Data b = s (g K L z + N y) + noise, z and y ~ N(0, I). The unknown x = s L z has the covariance s^2 L L^T, the columns
of N stand for what else is in the data, and g multiplies row by row. Noise has the standard deviation s rho over a
weight for each datum. The scale s follows in closed form, rho by the marginal likelihood [1]_: so a fit needs nothing
but data and prior, and data twice as large give an answer twice as large. Where g, N or the weights are not known,
there are several ways to read the data, and the answer is their mean, each weighted by its likelihood.

References
----------
.. [1] D. J. C. MacKay, "Bayesian interpolation", Neural Computation 4 (1992).
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

from algebraformer.linalg import FloatArray

RATIOS = np.exp(np.linspace(np.log(1e-5), np.log(3.0), 64))
"""Values of rho that are tried: from data as good as any instrument's to noise alone, 22 % apart."""
MULTIPLES = (1 / 3, 1.0, 3.0)
"""Multiples of the likeliest rho that fits are made with: one that keeps more, and one that keeps less."""
KEPT = 1e-5
"""Singular values of K L, over the largest, below which a direction of z does not show in data."""


ROUNDING = 1e-13
"""Share of the squared data that is left, at least: below it there is rounding alone."""


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to read data.

    Attributes
    ----------
    factor : ndarray, shape (m,)
        g, what the rows of the kernel are multiplied by.
    N : ndarray, shape (m, q)
        Columns for what else is in the data, each times the standard deviation of its coefficient over the prior where
        x is about one. All ways have as many columns, which mean the same.
    weights : ndarray, shape (m,) or (B, m)
        Of the data; 0 for a datum that is missing.
    """

    factor: FloatArray
    N: FloatArray
    weights: FloatArray


@dataclasses.dataclass(frozen=True)
class Measurements:
    """B sets of data from one set-up.

    Attributes
    ----------
    K : ndarray, shape (m, n)
        The kernel: data per unknown.
    b : ndarray, shape (B, m)
        The data.
    ways : tuple of Way
        How the data may have come about.
    features : ndarray, shape (f,)
        What else is known of the set-up.
    """

    K: FloatArray
    b: FloatArray
    ways: tuple[Way, ...]
    features: FloatArray


class Fits(NamedTuple):
    """Fits of B sets of data.

    Attributes
    ----------
    x : ndarray, shape (3, B, n)
        Posterior means of the unknown for each of `MULTIPLES`.
    y : ndarray, shape (3, B, q)
        Those of the coefficients of N.
    x_std, y_std : ndarray, shape (B, n) and (B, q)
        Posterior standard deviations for the likeliest rho.
    scale : ndarray, shape (B,)
        s.
    noise : ndarray, shape (B,)
        Root mean square of the standard deviations of the noise.
    shares : ndarray, shape (B, v)
        Probabilities of the ways.
    n_data : ndarray, shape (B,)
        Number of data.
    """

    x: FloatArray
    y: FloatArray
    x_std: FloatArray
    y_std: FloatArray
    scale: FloatArray
    noise: FloatArray
    shares: FloatArray
    n_data: FloatArray


def fit(data: Measurements, L: FloatArray) -> Fits:
    """Fit x and the coefficients of N to data.

    Parameters
    ----------
    data : Measurements
    L : ndarray, shape (n, k)
        Prior covariance of x is L L^T, up to the scale.

    Returns
    -------
    Fits
    """
    # 1. The directions of z that show in data, and the variance of what the others add.
    KL = data.K @ L
    squares, W = np.linalg.eigh(KL.T @ KL)
    seen = squares > KEPT**2 * squares[-1]
    hidden = np.sum((L @ W[:, ~seen]) ** 2, axis=1)
    KL, L = KL @ W[:, seen], L @ W[:, seen]
    n, q = len(L), data.ways[0].N.shape[1]
    C = np.zeros((n + q, L.shape[1] + q))
    C[:n, : L.shape[1]], C[n:, L.shape[1] :] = L, np.eye(q)

    # 2. Every way; one decomposition where all sets of data share their weights.
    ways = []
    for way in data.ways:
        F = np.concatenate((way.factor[:, None] * KL, way.N), axis=1)
        if way.weights.ndim == 1:
            ways.append(_fit(F, C, data.b, way.weights))
        else:
            single = [_fit(F, C, b[None], w) for b, w in zip(data.b, way.weights, strict=True)]
            ways.append(_Fit(np.concatenate([s.u for s in single], axis=1), *(
                np.concatenate(part) for part in list(zip(*single, strict=True))[1:]
            )))  # fmt: skip

    # 3. Their mean by likelihood; its variance is that of each and that between them.
    likelihood = np.stack([way.likelihood for way in ways], axis=1)
    shares = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    u = np.einsum("vcbi,bv->cbi", np.stack([way.u for way in ways]), shares)
    variance = np.einsum("vbi,bv->bi", np.stack([way.variance + (way.u[1] - u[1]) ** 2 for way in ways]), shares)
    scale, noise = (np.exp(np.sum(np.log([way[i] for way in ways]).T * shares, axis=1)) for i in (2, 3))
    variance[:, :n] += scale[:, None] ** 2 * hidden
    std = np.sqrt(variance)
    n_data = np.broadcast_to(np.count_nonzero(data.ways[0].weights, axis=-1), noise.shape).astype(float)
    return Fits(u[:, :, :n], u[:, :, n:], std[:, :n], std[:, n:], scale, noise, shares, n_data)


def posterior_factor(data: Measurements, L: FloatArray, index: int, way: int, scale: float, noise: float) -> FloatArray:
    """Return S (n, k) with the posterior covariance S S^T of x for one set of data, read in one way.

    Parameters
    ----------
    data, L
        As for `fit`.
    index, way : int
        Which set of data, and which way.
    scale, noise : float
        s, and the root mean square of the standard deviations of the noise.
    """
    chosen = data.ways[way]
    weights = chosen.weights if chosen.weights.ndim == 1 else chosen.weights[index]
    ratio = noise / scale / np.sqrt(np.mean(1 / weights[weights > 0] ** 2))
    F = weights[:, None] * np.concatenate((chosen.factor[:, None] * (data.K @ L), chosen.N), axis=1)
    d, V = np.linalg.eigh(F.T @ F)
    factor: FloatArray = scale * ratio * (L @ V[: L.shape[1]]) / np.sqrt(np.maximum(d, 0.0) + ratio**2)
    return factor


class _Fit(NamedTuple):
    """One way: means (3, B, n + q), variances (B, n + q), scales, noise and log likelihoods (B,)."""

    u: FloatArray
    variance: FloatArray
    scale: FloatArray
    noise: FloatArray
    likelihood: FloatArray


def _fit(F: FloatArray, C: FloatArray, b: FloatArray, weights: FloatArray) -> _Fit:
    """Fit b (B, m) by F (m, k) with weights (m,); C (n + q, k) takes the coefficients to x and y."""
    present = weights > 0
    m = np.count_nonzero(present)

    # 1. In the eigenvectors of F^T F, which are right for every rho.
    F, b = weights[:, None] * F, weights * b
    d, V = np.linalg.eigh(F.T @ F)
    d = np.maximum(d, 0.0)
    projected, C = b @ (F @ V), C @ V
    size = np.sqrt(np.maximum(np.sum(b**2, axis=1), np.finfo(float).tiny))
    projected /= size[:, None]

    # 2. b^T (F F^T + rho^2)^-1 b and the determinant, for all rho; with them the scale and the likelihood.
    squares = RATIOS**2
    damped = d + squares[:, None]  # (rho, k)
    form = np.maximum(1 - projected**2 @ (1 / damped).T, ROUNDING) / squares
    determinant = np.log(damped).sum(axis=1) + (m - len(d)) * np.log(squares)
    likelihood = -0.5 * (m * np.log(form * size[:, None] ** 2 / m) + determinant)

    # 3. The mean of log rho under the likelihood: smoother than the likeliest of a grid.
    top = likelihood.max(axis=1)
    posterior = np.exp(likelihood - top[:, None])
    ratio = np.exp(posterior @ np.log(RATIOS) / posterior.sum(axis=1))
    damped = d + ratio[:, None] ** 2
    form = np.maximum(1 - np.sum(projected**2 / damped, axis=1), ROUNDING) / ratio**2
    scale = size * np.sqrt(form / m)

    # 4. Means and deviations; noise in the units of the data.
    u = np.stack([(size[:, None] * projected / (d + (c * ratio[:, None]) ** 2)) @ C.T for c in MULTIPLES])
    variance = (scale * ratio)[:, None] ** 2 * ((1 / damped) @ (C**2).T)
    noise = scale * ratio * np.sqrt(np.mean(1 / weights[present] ** 2))
    return _Fit(u, variance, scale, noise, top + np.log(weights[present]).sum())
