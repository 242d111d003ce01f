"""What the tokens of estimate heads hold besides the entries of the system: Tikhonov solutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from algebraformer.models.config import TIKHONOV

TIKHONOV_PARAMETERS = 10.0 ** np.linspace(-6, -1, TIKHONOV)
"""Tikhonov parameters of the channels, for A scaled so that ||A^T A||_F = 1."""


def tikhonov_channels(gram: Any, back: Any, xp: Any = np, solve: Callable[..., Any] = np.linalg.solve) -> Any:
    """Return (A^T A + lambda I)^-1 A^T b (B, 5, n) for all `TIKHONOV_PARAMETERS`, from A^T A and A^T b (B, n).

    One batched LU: with lambda from 1e-6 of the size of A^T A on, these systems are well enough conditioned, and it is
    five times faster than the eigenvalues of A^T A. One A^T A (1, n, n) for several b is factorised once.
    """
    n = gram.shape[-1]
    shifts = xp.asarray(TIKHONOV_PARAMETERS[:, None, None] * np.eye(n), device=gram.device)
    if len(gram) == 1 < len(back):
        columns = xp.broadcast_to(back.mT[None], (TIKHONOV, n, len(back)))
        return xp.moveaxis(solve(gram + shifts, columns), 2, 0)
    right = xp.broadcast_to(back[:, None, :, None], (len(gram), TIKHONOV, n, 1))
    return solve(gram[:, None] + shifts, right)[..., 0]
