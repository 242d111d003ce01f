"""How a network reads a system: raw tokens, before their embedding. For arrays of NumPy and tensors of torch (`xp`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from algebraformer.models.config import TIKHONOV, Encoding

TIKHONOV_PARAMETERS = 10.0 ** np.linspace(-6, -1, TIKHONOV)
"""Tikhonov parameters of the channels, for A scaled so that ||A^T A||_F = 1."""


def column_tokens(A: Any, b: Any, xp: Any = np) -> Any:
    """Return the paper's tokens [a_i, b_i]: column i of A joined with entry i of b, shape (B, n, n + 1)."""
    return xp.concatenate((A.mT, b[:, :, None]), axis=2)


def row_tokens(A: Any, b: Any, xp: Any = np) -> Any:
    """Return one token per equation: row i of A joined with entry i of b, shape (B, n, n + 1)."""
    return xp.concatenate((A, b[:, :, None]), axis=2)


def column_b_tokens(A: Any, b: Any, xp: Any = np) -> Any:
    """Return column i of A joined with all of b, shape (B, n, 2 n)."""
    return xp.concatenate((A.mT, xp.broadcast_to(b[:, None, :], A.shape)), axis=2)


def entry_tokens(A: Any, b: Any, xp: Any = np) -> Any:
    """Return one token [a_ij, b_i] per entry of A, rows first, shape (B, n * n, 2): what the paper argues against."""
    pairs = xp.concatenate((A[..., None], xp.broadcast_to(b[:, :, None], A.shape)[..., None]), axis=3)
    return pairs.reshape(len(A), -1, 2)


TOKENS: dict[Encoding, Callable[..., Any]] = {
    "column": column_tokens,
    "row": row_tokens,
    "column-b": column_b_tokens,
    "entry": entry_tokens,
}


def tikhonov_channels(gram: Any, back: Any, xp: Any = np, solve: Callable[..., Any] = np.linalg.solve) -> Any:
    """Return (A^T A + lambda I)^-1 A^T b (B, 5, n) for all `TIKHONOV_PARAMETERS`, from A^T A and A^T b (B, n).

    One batched LU: with lambda from 1e-6 of the size of A^T A on, these systems are well enough conditioned, and it is
    five times faster than the eigenvalues of A^T A.
    """
    n = gram.shape[-1]
    shifts = xp.asarray(TIKHONOV_PARAMETERS[:, None, None] * np.eye(n), device=gram.device)
    right = xp.broadcast_to(back[:, None, :, None], (len(gram), TIKHONOV, n, 1))
    return solve(gram[:, None] + shifts, right)[..., 0]
