"""The embedding of tokens, which `encodings` and readers make of a system."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from algebraformer.models.config import ModelConfig


class Tokens(nn.Module):
    """Embedding of tokens in the width of the network, with learned positions if the network is to have them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embedding = nn.Linear(config.token_width, config.n_embd)
        shape = config.position_shape
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
