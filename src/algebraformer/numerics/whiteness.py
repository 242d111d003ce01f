"""Whether residuals look like white noise.

References
----------
.. [1] J. Durbin and G. S. Watson, "Testing for serial correlation in least squares regression", Biometrika 37 (1950).
"""

from __future__ import annotations

import numpy as np

from algebraformer.linalg import FloatArray

NAMES = ("misfit", "neighbours", "blocks", "outlier")
"""What `checks` returns."""
BLOCKS = 8
"""Blocks whose means are looked at: slow drifts and short artefacts show in them."""


def checks(residual: FloatArray) -> FloatArray:
    """Return numbers that tell noise from what a model has left over.

    Parameters
    ----------
    residual : ndarray, shape (B, m)
        Residuals over the standard deviations of the noise, in the order of the abscissa.

    Returns
    -------
    ndarray, shape (B, 4)
        Root mean square; correlation of neighbours times the root of m [1]_, about N(0, 1) for white noise; the largest
        mean of a block, over its standard deviation; the largest residual in absolute value.
    """
    m = residual.shape[1]
    rms = np.sqrt(np.mean(residual**2, axis=1))
    size = np.where(rms > 0, rms, 1.0)
    white = residual / size[:, None]
    neighbours = np.sum(white[:, 1:] * white[:, :-1], axis=1) / np.sqrt(m)
    sums = np.add.reduceat(white, np.arange(0, m, -(-m // BLOCKS)), axis=1)
    counts = np.add.reduceat(np.ones(m), np.arange(0, m, -(-m // BLOCKS)))
    blocks = np.abs(sums / np.sqrt(counts)).max(axis=1)
    return np.stack((rms, neighbours, blocks, np.abs(white).max(axis=1)), axis=1)
