"""How well the entries that are read of A determine its inverse: measured on samples, before a network is trained.

The coefficients of `OperatorBasis` are those of T = A^-1 Abar, and to know T is to know its inverse

    Y = Abar^-1 A / s,

which is the better one to predict: where A is linear in the parameters of a family, so is Y, and a few hundred samples
show what the readings leave open. T is a rational function of the parameters, and a regression on as few samples fails
on it whatever is read. To first order an error of Y is one of T, That - T = -T (Yhat - Y) T.

Y is predicted by kernel ridge regression, and only its products with a few random vectors, of which the mean square is
that of Y itself [1]_; every sample is left out once, in closed form [2]_.

References
----------
.. [1] N. Halko, P. G. Martinsson and J. A. Tropp, "Finding structure with randomness", SIAM Rev. 53 (2011).
.. [2] C. E. Rasmussen and C. K. I. Williams, "Gaussian Processes for Machine Learning", MIT Press (2006), sec. 5.4.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from algebraformer.linalg import FloatArray
from algebraformer.numerics.entry_sampler import CONSTANT_RTOL, WHITENING_RTOL, EntrySampler, real_parts
from algebraformer.progress import ProgressCallback, batches, silent

N_VECTORS = 16
"""Random vectors that Y is multiplied by: the mean square of n x 16 numbers is within a few per cent of that of n^2."""
SPREAD_POWERS = (0.0, 0.5)
"""Combinations of entries count by this power of their spread: all of them alike, or the rare ones less."""
KERNEL_LENGTH = 3.0
"""Length of the Gaussian kernel, in root mean square distances of a reading from the mean."""
RIDGES = (1e-15, 1e-12, 1e-9, 1e-6, 1e-3, 1.0)
"""Ridges by the largest eigenvalue of the kernel matrix: from rounding to the mean alone."""


def reading_errors(
    sample: Callable[[range], FloatArray],
    n: int,
    samplers: Sequence[EntrySampler],
    count: int,
    report: ProgressCallback = silent,
) -> list[float]:
    """Return, for each choice of entries, the share of Y that they leave open, from 0 to 1.

    It is the median error of the best regression on the other samples, relative to the root mean square spread of Y.
    The median, because a few samples at the rim of the family would decide a mean.

    Parameters
    ----------
    sample : callable
        Takes a range of indices to the matrices (B, n, n) of these samples.
    n : int
        Number of unknowns.
    samplers : sequence of EntrySampler
        Choices of entries; a whitening makes no difference.
    count : int
        Number of samples. Equal ones count once, for their left-out copies would be known.
    report : callable
        Called with the number of samples drawn so far and the number in all.

    Examples
    --------
    The entry that is read tells two parameters apart or only their sum:

    >>> import numpy as np
    >>> from algebraformer.numerics.entry_sampler import select_entries
    >>> def sample(indices):
    ...     p = np.array([np.random.default_rng(i).uniform(-0.2, 0.2, 2) for i in indices])
    ...     return np.eye(4) + p[:, 0, None, None] * np.eye(4) + p[:, 1, None, None] * np.diag([1, 1, 1, 0])
    >>> samplers = [select_entries(iter([sample(range(64))]), 64, q, q, False) for q in (1, 4)]
    >>> one, all_of_them = reading_errors(sample, 4, samplers, 64)
    >>> one > 0.5, all_of_them < 1e-3
    (True, True)
    """
    vectors = np.random.default_rng(0).standard_normal((n, N_VECTORS))
    plain = [dataclasses.replace(sampler, whitening=None) for sampler in samplers]
    dtype = plain[0].reference.dtype
    means = np.zeros((len(plain), n, n), dtype)
    products = np.empty((count, n, N_VECTORS), dtype)
    z = [np.empty((count, sampler.mean.size)) for sampler in plain]
    s = np.empty((len(plain), count, 1, 1), dtype)

    # 1. Readings z, sizes s, and A times the random vectors; A itself is not kept.
    for part in batches(count, max(1, min(256, 2**25 // n**2))):  # 256 MB of float64
        report(part.start, count)
        A = sample(part)
        products[part.start : part.stop] = A @ vectors
        for k, sampler in enumerate(plain):
            entries, size = sampler(A)
            z[k][part.start : part.stop] = entries.reshape(len(A), -1)
            s[k, part.start : part.stop, 0, 0] = np.where(size != 0, size, 1.0)
            means[k] += np.sum(A / s[k, part.start : part.stop], axis=0) / count
    report(count, count)

    # 2. Y times the vectors, and what is left of it, over the samples that differ.
    _, distinct = np.unique(products.sum(axis=(1, 2)), return_index=True)
    errors = []
    for k, mean in enumerate(means):
        Y = np.linalg.solve(mean, (products / s[k])[distinct])
        errors.append(_left_open(z[k][distinct], real_parts(Y.reshape(len(distinct), -1))))
    return errors


def _left_open(z: FloatArray, Y: FloatArray) -> float:
    """Return the leave-one-out error of Y (N, d) from z (N, p) by the best of a few regressions, over Y's spread."""
    size = np.sum(Y**2)
    z, Y = z - z.mean(axis=0), Y - Y.mean(axis=0)
    variance = np.sum(Y**2)
    if variance <= CONSTANT_RTOL**2 * size:
        return 0.0
    U, spread, _ = np.linalg.svd(z, full_matrices=False)
    kept = spread > WHITENING_RTOL * spread[0]
    gram, best = Y @ Y.T, 1.0
    for power in SPREAD_POWERS if kept.any() else ():
        features = U[:, kept] * spread[kept] ** power
        products = features @ features.T
        products /= np.trace(products) / len(products)
        squares = np.diagonal(products)
        distances = squares[:, None] + squares - 2 * products
        for kernel in ((1 + products) ** 2, np.exp(-distances / (2 * KERNEL_LENGTH**2))):
            values, V = np.linalg.eigh(kernel)
            rotated = V.T @ gram @ V
            for ridge in RIDGES:
                # P = (K + ridge)^-1 leaves out sample i with the residual (P Y)_i / P_ii [2]_.
                W = V / (np.maximum(values, 0.0) + ridge * values[-1])
                squared = np.sum((W @ rotated) * W, axis=1) / np.sum(W * V, axis=1) ** 2
                best = min(best, float(np.sqrt(np.median(np.abs(squared)) * len(Y) / variance)))
    return best
