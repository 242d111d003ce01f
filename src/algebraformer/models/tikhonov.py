"""What the tokens of estimate heads hold besides the entries of the system: Tikhonov solutions."""

from __future__ import annotations

import numpy as np

from algebraformer.linalg import FloatArray
from algebraformer.models.config import TIKHONOV

TIKHONOV_PARAMETERS = 10.0 ** np.linspace(-6, -1, TIKHONOV)
"""Tikhonov parameters of the channels, for A scaled so that ||A^T A||_F = 1."""


def tikhonov_channels(gram: FloatArray, back: FloatArray) -> FloatArray:
    """Return (A^T A + lambda I)^-1 A^T b (B, 5, n) for all `TIKHONOV_PARAMETERS`, from A^T A and A^T b (B, n).

    One batched LU: with lambda from 1e-6 of the size of A^T A on, these systems are well enough conditioned, and it is
    five times faster than the eigenvalues of A^T A.
    """
    shifted = gram[:, None] + TIKHONOV_PARAMETERS[:, None, None] * np.eye(gram.shape[-1])
    right = np.broadcast_to(back[:, None, :, None], (*shifted.shape[:3], 1))
    return np.asarray(np.linalg.solve(shifted, right)[..., 0], dtype=np.float64)
