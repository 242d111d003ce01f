"""Tokens: how a network reads a system, and their embedding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from algebraformer.linalg import FloatArray
from algebraformer.models.config import TIKHONOV, Encoding, ModelConfig

TIKHONOV_PARAMETERS = 10.0 ** np.linspace(-6, -1, TIKHONOV)
"""Tikhonov parameters of the channels, for A scaled so that ||A^T A||_F = 1."""


def column_tokens(A: Tensor, b: Tensor) -> Tensor:
    """Return the paper's tokens [a_i, b_i]: column i of A joined with entry i of b, shape (B, n, n + 1)."""
    return torch.cat((A.transpose(1, 2), b[:, :, None]), dim=2)


def row_tokens(A: Tensor, b: Tensor) -> Tensor:
    """Return one token per equation: row i of A joined with entry i of b, shape (B, n, n + 1)."""
    return torch.cat((A, b[:, :, None]), dim=2)


def column_b_tokens(A: Tensor, b: Tensor) -> Tensor:
    """Return column i of A joined with all of b, shape (B, n, 2 n)."""
    return torch.cat((A.transpose(1, 2), b[:, None, :].expand_as(A)), dim=2)


def entry_tokens(A: Tensor, b: Tensor) -> Tensor:
    """Return one token [a_ij, b_i] per entry of A, rows first, shape (B, n * n, 2): what the paper argues against."""
    return torch.stack((A, b[:, :, None].expand_as(A)), dim=3).flatten(1, 2)


TOKENS: dict[Encoding, Callable[[Tensor, Tensor], Tensor]] = {
    "column": column_tokens,
    "row": row_tokens,
    "column-b": column_b_tokens,
    "entry": entry_tokens,
}


def tikhonov_channels(gram: FloatArray, back: FloatArray) -> FloatArray:
    """Return (A^T A + lambda I)^-1 A^T b (B, 5, n) for all `TIKHONOV_PARAMETERS`, from A^T A and A^T b (B, n).

    One batched LU: with lambda from 1e-6 of the size of A^T A on, these systems are well enough conditioned, and it is
    five times faster than the eigenvalues of A^T A.
    """
    shifted = gram[:, None] + TIKHONOV_PARAMETERS[:, None, None] * np.eye(gram.shape[-1])
    right = np.broadcast_to(back[:, None, :, None], (*shifted.shape[:3], 1))
    return np.asarray(np.linalg.solve(shifted, right)[..., 0], dtype=np.float64)


class Tokens(nn.Module):
    """Embedding of tokens in the width of the network, with learned positions if the network is to have them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = nn.Linear(config.token_width, config.n_embd)
        placed = config.architecture in ("transformer", "feedback") and config.positions
        shape = config.head.position_shape(config) if placed else ()
        self.positions = nn.ParameterList(nn.Parameter(torch.empty(length, config.n_embd)) for length in shape)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return tokens (B, T, n_embd) from raw ones (B, T, token_width)."""
        tokens = self.embedding(tokens)
        match list(self.positions):
            case [column]:
                return tokens + column
            case [row, column]:
                return tokens + (row[:, None] + column).flatten(0, 1)  # (n, n, n_embd) -> (n * n, n_embd)
            case _:  # recurrent networks know the order; a Transformer may be made not to
                return tokens
