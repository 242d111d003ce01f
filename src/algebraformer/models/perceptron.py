"""Residual perceptrons on the entries an operator head reads: what the Transformer has to compete with (ours).

References
----------
.. [1] K. He et al., "Identity mappings in deep residual networks", ECCV 2016.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from algebraformer.models.config import ModelConfig


class PerceptronBlock(nn.Module):
    """Two layers of width n_embd behind a layer norm, added to their input."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.n_embd)
        self.mlp = nn.Sequential(
            nn.Linear(config.n_embd, config.n_embd), nn.GELU(), nn.Linear(config.n_embd, config.n_embd)
        )

    def forward(self, h: Tensor) -> Tensor:
        return h + self.mlp(self.norm(h))


class Perceptron(nn.Module):
    """The blocks: one token (B, 1, n_embd) to the normalised states behind every block, (B, 1, n_layer n_embd).

    The read-out is linear and fitted by least squares, so every state behind a block is one more set of features.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(PerceptronBlock(config) for _ in range(config.n_layer))
        self.width = config.n_layer * config.n_embd

    def forward(self, h: Tensor) -> Tensor:
        states = []
        for block in self.blocks:
            h = block(h)
            states.append(F.layer_norm(h, h.shape[-1:]))
        return torch.cat(states, dim=-1)
